"""Questions that many ask at the same moment, answered together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")

GATHER_SECONDS = 0.02
"""A tick puts all its campaigns on the queue at once; their questions come within this time."""


class Batched(Generic[K, V]):
    """`ask(key)` waits a moment for other keys, then all are fetched by one call. An answer is never older than
    its question, so a look that follows a write sees the write."""

    def __init__(self, fetch: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._fetch = fetch
        self._waiting: dict[K, asyncio.Future[V]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, key: K) -> V:
        """The value of a key.

        Raises:
            what `fetch` raises, to all who asked; KeyError if it did not answer this key.
        """
        if key not in self._waiting:
            if not self._waiting:
                task = asyncio.get_running_loop().create_task(self._answer())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            self._waiting[key] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._waiting[key])

    async def _answer(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        asked, self._waiting = self._waiting, {}
        try:
            values = await self._fetch(list(asked))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to those who asked
            for future in asked.values():
                future.set_exception(error)
                future.exception()  # seen, should nobody be waiting any more
            return
        for key, future in asked.items():
            if key in values:
                future.set_result(values[key])
            else:
                future.set_exception(KeyError(key))
                future.exception()
