"""Outcomes on their way into the ledger: few transactions, soon."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailfleet_sender.ledger import Outcome, OwnedRange

    from .tally import Tally
    from .threads import Thread

FLUSH_ROWS = 500
FLUSH_SECONDS = 0.1
"""COPY of a batch costs a commit: at 500 rows or 100 ms it is below a tenth of sending (PERFORMANCE)."""


class Recorder:
    """Collects outcomes and records them in the order in which they came."""

    def __init__(self, owned: OwnedRange, ledger: Thread, *, tally: Tally, recorded: Callable[[], None]) -> None:
        self._owned, self._ledger, self._tally, self._recorded = owned, ledger, tally, recorded
        self._waiting: list[Outcome] = []
        self._writing: list[Outcome] = []
        self._full = asyncio.Event()
        self._lock = asyncio.Lock()

    def add(self, *outcomes: Outcome) -> None:
        """These are to be recorded."""
        self._waiting += outcomes
        if len(self._waiting) >= FLUSH_ROWS:
            self._full.set()

    async def run(self) -> None:
        """Record at 500 rows or each 100 ms; run it as a task. Raises what `OwnedRange.record` raises."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._full.wait()
            self._full.clear()
            await self.flush()

    async def flush(self) -> None:
        """Record what is there now."""
        async with self._lock:
            if not self._waiting:
                return
            self._writing, self._waiting = self._waiting, []
            began = time.monotonic()
            await self._ledger.run(self._owned.record, self._writing)
            self._tally.commits.took(time.monotonic() - began)
            self._writing = []
            self._recorded()

    @property
    def pending(self) -> int:
        """Outcomes that are known and not yet committed."""
        return len(self._waiting) + len(self._writing)

    @property
    def unrecorded(self) -> list[Outcome]:
        """What a fenced sender leaves for its successor to find."""
        return [*self._writing, *self._waiting]
