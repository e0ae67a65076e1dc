"""What a pod leaves behind when the ledger cannot be told."""

from __future__ import annotations

import contextlib
from pathlib import Path

from .contract.environment import TERMINATION_LOG

LAST_WORDS = 4_096
"""Octets that the kubelet keeps of a termination message."""


def leave(text: str) -> None:
    """Leave a message where the kubelet finds it; outside of a pod there is no such place."""
    with contextlib.suppress(OSError):
        Path(TERMINATION_LOG).write_bytes(text.encode()[:LAST_WORDS])
