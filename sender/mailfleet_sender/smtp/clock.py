"""How long a relay may be silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .replies import Phase

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .timeouts import Timeouts


class Clock:
    """One timer for a connection, set again only every now and then, whatever is waited for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeouts: Timeouts, late: Callable[[str], None]) -> None:
        self._loop, self._late = loop, late
        self._seconds = {
            Phase.RSET: timeouts.mail_seconds,
            Phase.MAIL: timeouts.mail_seconds,
            Phase.RCPT: timeouts.rcpt_seconds,
            Phase.DATA: timeouts.data_seconds,
            Phase.DOT: timeouts.dot_seconds,
        }
        self._block_seconds = timeouts.block_seconds
        self._shortest = min(*self._seconds.values(), timeouts.block_seconds)
        self._until: float | None = None
        self._why = ""
        self._given = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def expect(self, phase: Phase | None) -> None:
        """A reply in this phase is waited for from now on; None: nothing is."""
        if phase is None:
            self._until = None
            return
        self._wait(self._seconds[phase], "the relay did not answer within")

    def expect_block(self) -> None:
        """The relay is to take a block of a message."""
        self._wait(self._block_seconds, "the relay took no more of the message for")

    def stop(self) -> None:
        """Nothing is waited for any more."""
        self._until = None
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self, seconds: float, why: str) -> None:
        now = self._loop.time()
        self._until, self._given, self._why = now + seconds, seconds, why
        if self._timer is None:  # no later wait ends before this: it looks again
            self._timer = self._loop.call_at(now + self._shortest, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._until is None:
            return
        now = self._loop.time()
        if now >= self._until:
            self._late(f"{self._why} {self._given:g} s")
        else:
            self._timer = self._loop.call_at(min(self._until, now + self._shortest), self._look)
