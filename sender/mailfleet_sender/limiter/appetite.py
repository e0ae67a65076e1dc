"""How many permits a pod should ask for (LIMITER, client rule 4). Pure."""

from __future__ import annotations

LARGEST = 500
"""Permits in one batch, as in reserve.lua: what a capable pod with rows says."""
CAREFUL_BATCHES = 7
CAREFUL_GROWTH, GROWTH = 1.05, 1.5


class Appetite:
    """What this pod's connections can use.

    Permits that were dropped because no connection was free shrink it to what the batch could use; clean
    batches let it grow again, slowly at first. Pauses of the process say nothing about the connections:
    a permit that lapsed in one is not told here.
    """

    def __init__(self, most: int = LARGEST) -> None:
        self.most = most
        self._want = float(most)
        self._clean = 0
        self._granted = self._starved = 0

    @property
    def want(self) -> int:
        """Permits to ask for, 1 to `most`; rows that are ready limit it further."""
        return max(1, min(self.most, int(self._want)))

    def granted(self, count: int) -> None:
        """A batch begins; what became of the one before is judged."""
        if self._starved:
            self._want = max(1.0, float(self._granted - self._starved))
            self._clean = 0
        elif self._granted:
            self._clean += 1
            growth = GROWTH if self._clean > CAREFUL_BATCHES else CAREFUL_GROWTH
            self._want = min(float(self.most), self._want * growth)
        self._granted, self._starved = count, 0

    def starved(self) -> None:
        """A permit of this batch was dropped because no connection was free."""
        self._starved += 1
