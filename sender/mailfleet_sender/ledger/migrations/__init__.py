"""Alembic's scripts, shipped in the package so that any installation can migrate its ledger."""
