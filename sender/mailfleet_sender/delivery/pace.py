"""How fast this sender is when it has enough to do. Pure."""

from __future__ import annotations

WINDOW_SECONDS = 0.1
FIRST_PER_SECOND = 1_000.0
GROWTH = 1.25
"""A window in which there was not enough to do says only that more may be possible."""


class Pace:
    """Mails that begin in a second while some wait for room; an upper bound where none ever waits.

    Connections and transaction times alone say too much: they do not know of the time that this process needs.
    """

    def __init__(self, now: float) -> None:
        self.per_second = FIRST_PER_SECOND
        self._since, self._begun, self._always_busy = now, 0, True

    def began(self) -> None:
        """A mail began."""
        self._begun += 1

    def nothing_waits(self) -> None:
        """Nobody waits for room now."""
        self._always_busy = False

    def look(self, now: float) -> None:
        """A moment in which mails may begin; seconds of any steady clock."""
        elapsed = now - self._since
        if elapsed < WINDOW_SECONDS:
            return
        measured = self._begun / elapsed
        self.per_second = measured if self._always_busy else max(self.per_second, measured) * GROWTH
        self.per_second = max(1.0, min(self.per_second, 1e6))
        self._since, self._begun, self._always_busy = now, 0, True
