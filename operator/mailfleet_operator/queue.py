"""Keys that need a look, each once, each by one worker at a time.

The semantics of client-go's workqueue: a key that is added while it waits is one key; added while it is being
worked on, it comes again afterwards. A key whose work failed comes again after a growing pause.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

K = TypeVar("K", bound="Hashable")
log = structlog.get_logger()

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


class WorkQueue(Generic[K]):
    """Add keys from the event loop; `run` works on them until cancelled."""

    def __init__(self, work: Callable[[K], Awaitable[None]], *, workers: int) -> None:
        self._work, self._workers = work, workers
        self._order: deque[K] = deque()
        self._waiting: set[K] = set()
        self._busy: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._something = asyncio.Event()

    def add(self, key: K) -> None:
        """This key needs a look."""
        if key in self._busy:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._order.append(key)
            self._something.set()

    @property
    def depth(self) -> int:
        """Keys that wait."""
        return len(self._order)

    async def run(self) -> None:
        """Work, several keys at once."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._worker())

    async def _worker(self) -> None:
        while True:
            key = await self._next()
            try:
                await self._work(key)
                self._failures.pop(key, None)
            except Exception:
                pause = self._pause(key)
                log.exception("a look at this key failed", key=str(key), again_in_seconds=pause)
                asyncio.get_running_loop().call_later(pause, self.add, key)
            finally:
                self._busy.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    async def _next(self) -> K:
        while not self._order:
            self._something.clear()
            await self._something.wait()
        key = self._order.popleft()
        self._waiting.discard(key)
        self._busy.add(key)
        return key

    def _pause(self, key: K) -> float:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10)))
