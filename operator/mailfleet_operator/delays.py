"""How long to wait before something that failed is tried again. Pure."""

from __future__ import annotations

from datetime import timedelta

FIRST = timedelta(seconds=15)
LONGEST = timedelta(seconds=120)
"""A person who mends the cause should not wait longer than that for the campaign to notice."""


def growing(attempt: int, *, longest: timedelta = LONGEST) -> timedelta:
    """After the first, second, third ... attempt that failed: 15, 30, 60 s and so on, at most `longest`."""
    return min(longest, timedelta(seconds=FIRST.total_seconds() * 2 ** min(max(attempt, 1) - 1, 8)))
