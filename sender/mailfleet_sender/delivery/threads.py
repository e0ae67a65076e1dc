"""One blocking connection, one thread: the bridge between asyncio and psycopg2."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


A_MOMENT = 1e-6
"""The least sleep that there is: 50 us or so, in which a thread wakes up and takes the interpreter."""


class Thread:
    """Runs blocking calls one after another in a thread of its own, in the order in which they were asked for."""

    at_work = 0
    """Calls of all threads that have not ended; counted in the loop."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function` there. A cancelled caller does not stop a call that has begun."""
        Thread.at_work += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*args, **kwargs))
        finally:
            Thread.at_work -= 1

    def close(self) -> None:
        """Wait for what runs, refuse more."""
        self._executor.shutdown()


def give_way() -> None:
    """Let a thread that is at work have the interpreter, if one waits for it; for a loop that is never idle.

    A loop in full swing lets the interpreter go for a few microseconds at each read and write. Each time Python wakes
    whoever waits for it, and each time it is gone before that thread is awake (decision 0103).
    """
    if Thread.at_work:
        time.sleep(A_MOMENT)
