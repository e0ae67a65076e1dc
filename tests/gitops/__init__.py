"""deploy/argocd: its Lua run over statuses that the operator itself makes, and the files that are made of both."""
