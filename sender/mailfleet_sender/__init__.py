"""The sender: knows e-mail, Postgres and Redis; never Kubernetes."""
