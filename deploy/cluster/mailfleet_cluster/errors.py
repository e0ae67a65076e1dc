"""What can go wrong while a cluster is made; each message says what to do about it."""

from __future__ import annotations


class ClusterError(Exception):
    """Family of this package's errors."""


class CommandError(ClusterError, RuntimeError):
    """A command ended with a failure; the message holds the end of what it said."""


class NotReadyError(ClusterError, TimeoutError):
    """A part did not come up in its time; the message names its log."""


class MissingToolError(ClusterError, FileNotFoundError):
    """A program that is needed is not installed; the message says how to get it."""


class UnsupportedError(ClusterError, RuntimeError):
    """This machine or user cannot do it; the message says why, and what can be done instead."""
