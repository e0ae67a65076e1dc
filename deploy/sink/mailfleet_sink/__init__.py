"""The oracle: an SMTP sink that logs what it accepted, whatever the ledger says.

It needs nothing but Python's standard library and knows nothing of Mailfleet: what it counts cannot be
wrong in the same way as what it checks.
"""
