"""What can go wrong in a demonstration; each message says what it was and what explains it."""


class DemoError(Exception):
    """Family of this package's errors."""


class CommandError(DemoError, RuntimeError):
    """kubectl or helm ended with a failure; the message holds what it said."""


class LateError(DemoError, TimeoutError):
    """Something did not come true by its deadline."""
