"""A Kubernetes to develop, test and show Mailfleet on; `python3 -m mailfleet_cluster` is its command.

Needs nothing but Python's standard library, because it runs before any virtual environment exists.
docs/local-cluster.md is its page for people.
"""
