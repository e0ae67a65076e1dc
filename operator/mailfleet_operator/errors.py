"""What can go wrong in the operator's room. Each error has two parents: its family and the built-in it is."""

from __future__ import annotations


class OperatorError(Exception):
    """Anything of the operator's own."""


class SettingsError(OperatorError, ValueError):
    """The environment does not say what the operator needs."""


class ClusterError(OperatorError, OSError):
    """The API server refused a request; `status` is its HTTP status, 0 if it was not reached."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ObjectGoneError(ClusterError, LookupError):
    """The object is no longer there."""


class ObjectConflictError(ClusterError):
    """Somebody changed the object since it was observed, or it is another of that name: observe again."""
