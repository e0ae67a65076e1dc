"""A small world in virtual time for the operator's model test: API server, Jobs, pods, nodes, ledger and limiter.

The operator in it is the real one: observe, plan, apply, status, and its clients for ledger and cluster. Only what it
talks to is modelled: HTTP paths of the API server, `Runs`, `LimiterAdmin`. What the model does not know fails by name.
"""
