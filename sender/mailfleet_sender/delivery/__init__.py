"""Delivery: permit, claim, send, record."""
