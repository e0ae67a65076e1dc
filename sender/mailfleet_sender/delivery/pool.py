"""The connections of one sender to its relay: opened on demand, the most recently used first."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.errors import RelayUnavailable, SenderFault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mailfleet_sender.smtp import Connection

    from .trouble import Trouble

FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.5, 30.0
"""Backoff between failures of the relay: doubled from the first to the longest, then drawn from its upper half."""
FAILURES_TO_TELL = 3
"""Failures in a row before the operator hears of it: one dropped connection is not an outage."""
SMOOTHING = 0.1
"""Weight of the newest sample in the mean time of a transaction."""

log = structlog.get_logger()


class Pool:
    """At most `size` connections, and no more than `allow` said last; knows how the relay is, and how long a
    transaction takes.

    Attributes:
        opened, unopened: connections that were opened since the beginning, and attempts that came to nothing.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], size: int, trouble: Trouble) -> None:
        self._connect, self.size, self._trouble = connect, size, trouble
        self._open: list[Connection] = []  # the last one was used last
        self._leaving: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._allowed = size
        self._fault: SenderFault | None = None
        self._failures = 0
        self.opened = self.unopened = 0
        self._closed_until = 0.0
        self._transaction_seconds: float | None = None
        self._has_room: Callable[[Connection], None] = lambda _: None
        self._opened: Callable[[], None] = lambda: None
        self._failed: Callable[[Exception], None] = lambda _: None

    def listen(
        self,
        *,
        has_room: Callable[[Connection], None],
        opened: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Who is told when a connection can take a mail, when there is another one, and when one cannot be opened."""
        self._has_room, self._opened, self._failed = has_room, opened, failed

    # --- connections ------------------------------------------------------------------------------
    def take(self) -> Connection | None:
        """A connection that can take a mail now, best an idle one; another one is opened when none is idle."""
        best: Connection | None = None
        for connection in reversed(self._open):
            if connection.room and connection.usable and connection not in self._leaving:
                if not connection.under_way:
                    best = connection
                    break
                if best is None or connection.under_way < best.under_way:
                    best = connection
            elif not connection.under_way:  # lost, or idle for too long
                self._retire(connection)
        if best is None:
            return None
        if best.under_way:
            self.more(1)
        elif best is not self._open[-1]:
            self._open.remove(best)
            self._open.append(best)
        return best

    def more(self, waiting: int) -> None:
        """So many mails find no connection: open that many, if they may be held and the relay is not failing."""
        room = self._allowed - len(self._open) - len(self._opening) - len(self._closing)
        for _ in range(min(waiting - len(self._opening), room)):
            if self._fault is None and time.monotonic() >= self._closed_until:
                self._begin_opening()

    def done_with(self, connection: Connection) -> bool:
        """A mail of this connection has its verdict; whether room has to be looked for elsewhere now."""
        if connection.usable and connection not in self._leaving:
            return False
        if not connection.under_way:
            self._retire(connection)
        return True

    def allow(self, connections: int | None) -> None:
        """Hold at most so many connections from here on (None: `size`): idle ones go now, busy ones when they end."""
        self._allowed = min(self.size, connections or self.size)
        excess = len(self._open) + len(self._opening) - self._allowed
        if excess <= 0:
            self._leaving.clear()
            return
        self._leaving = set(sorted(self._open, key=lambda connection: connection.under_way)[:excess])
        for connection in list(self._leaving):
            if not connection.under_way:
                self._retire(connection)

    @property
    def held(self) -> int:
        """Connections that are open."""
        return len(self._open)

    @property
    def opening(self) -> bool:
        """Whether another connection is on its way."""
        return bool(self._opening)

    @property
    def down(self) -> bool:
        """Whether there is no connection, and none is opened for now."""
        return (
            (self._fault is not None or time.monotonic() < self._closed_until)
            and not self._opening
            and not any(connection.usable for connection in self._open)
        )

    def abort(self) -> None:
        """Cut every connection that is in use, now: what is on its way ends without a reply."""
        for connection in list(self._open):
            if connection.under_way:
                connection.abort()

    async def close(self) -> None:
        """Say QUIT on what is open."""
        for opening in self._opening:
            opening.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for connection in list(self._open):
            self._retire(connection)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _begin_opening(self) -> asyncio.Task[None]:
        task = asyncio.create_task(self._open_one())
        self._opening.add(task)
        task.add_done_callback(self._is_open)
        return task

    async def _open_one(self) -> None:
        connection = await self._connect()
        connection.on_room(self._offer)
        self._open.append(connection)

    def _is_open(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self.opened += 1
            self._opened()
        elif isinstance(error, Exception):
            self.unopened += 1
            if isinstance(error, RelayUnavailable):
                self.failed(str(error))
            elif isinstance(error, SenderFault):
                self._fault = error
            self._failed(error)

    def _offer(self, connection: Connection) -> None:
        if connection not in self._leaving:
            self._has_room(connection)

    def _retire(self, connection: Connection) -> None:
        """Close it; until that is done it counts as held."""
        if connection in self._open:
            self._open.remove(connection)
            self._leaving.discard(connection)
            task = asyncio.create_task(self._close(connection))
            self._closing.add(task)
            task.add_done_callback(self._is_closed)

    @staticmethod
    async def _close(connection: Connection) -> None:
        with suppress(OSError):
            await connection.close()

    def _is_closed(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        self._opened()

    # --- how the relay is -----------------------------------------------------------------------
    def failed(self, message: str, *, throttled: bool = False) -> None:
        """The relay could not be reached, closed the channel (421) or asked us to slow down.

        What many connections meet at once is one failure: those that arrive during a backoff do not raise it.
        """
        if time.monotonic() < self._closed_until:
            return
        self._failures += 1
        delay = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(self._failures - 1, 10))
        self._closed_until = time.monotonic() + delay * random.uniform(0.5, 1.0)  # noqa: S311 - spread, no secret
        log.warning("relay failed", failures=self._failures, message=message)
        if throttled:
            self._trouble.tell(ReportReason.RELAY_THROTTLING, message)
        elif self._failures >= FAILURES_TO_TELL:
            self._trouble.tell(ReportReason.RELAY_UNAVAILABLE, message)

    def succeeded(self, seconds: float) -> None:
        """A transaction ended with the relay's answer after `seconds`."""
        if self._failures:
            self._failures = 0
        self._trouble.over(ReportReason.RELAY_UNAVAILABLE, ReportReason.SENDER_FAULT, ReportReason.RELAY_THROTTLING)
        mean = self._transaction_seconds
        self._transaction_seconds = seconds if mean is None else mean + SMOOTHING * (seconds - mean)

    @property
    def at_once(self) -> int:
        """Messages that all connections together take at once."""
        return self._allowed * max((connection.depth for connection in self._open), default=1)

    @property
    def per_second(self) -> int:
        """Messages that the relay acknowledges in one second if all connections are used; at least `at_once`."""
        if not self._transaction_seconds:
            return self.at_once
        return max(self.at_once, int(self.at_once / self._transaction_seconds))

    async def reachable(self) -> None:
        """Return at once while the relay answers; else wait out the backoff and try one connection, until it does.

        Raises:
            SenderFault: the relay refuses this sender.
        """
        while self._failures or self._transaction_seconds is None:
            await asyncio.sleep(max(0.0, self._closed_until - time.monotonic()))
            if self._fault is not None:
                raise self._fault
            if any(connection.usable for connection in self._open):
                return
            if self._opening or len(self._open) + len(self._closing) >= self._allowed:
                for connection in [c for c in self._open if not c.under_way]:
                    self._retire(connection)
                await asyncio.wait({*self._opening, *self._closing} or {asyncio.create_task(asyncio.sleep(0.1))})
            else:
                await asyncio.wait({self._begin_opening()})
