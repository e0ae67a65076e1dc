"""The operator: knows Kubernetes and the sender's contract; never SMTP."""
