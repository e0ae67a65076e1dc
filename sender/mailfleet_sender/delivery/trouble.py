"""What a sender tells the operator about itself, through its row of reports in the ledger."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from mailfleet_sender.ledger import report

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from mailfleet_sender.contract.accounts import ReportReason

    from .threads import Thread

REPEAT_SECONDS = 10.0
"""The operator takes reports younger than a minute for true: repeat one that still holds."""

log = structlog.get_logger()


class Trouble:
    """At most one trouble at a time is told: the latest. Telling never blocks or fails the sending."""

    def __init__(self, engine: Engine, thread: Thread, *, run: int, reporter: str) -> None:
        self._engine, self._thread, self._run, self._reporter = engine, thread, run, reporter
        self._now: tuple[ReportReason, str] | None = None
        self._told: tuple[ReportReason, str] | None = None
        self._changed = asyncio.Event()

    def tell(self, reason: ReportReason, message: str) -> None:
        """Something is wrong: `message` names it and the remedy, without address or secret."""
        self._now = (reason, message)
        if self._now != self._told:
            self._changed.set()

    def over(self, *reasons: ReportReason) -> None:
        """The trouble is over, if it was one of these."""
        if self._now and self._now[0] in reasons:
            self._now = None
            self._changed.set()

    async def keep_telling(self) -> None:
        """Write each change, and repeat what still holds; run it as a task."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPEAT_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            if self._now or self._told:
                await self.write()

    async def write(self) -> None:
        """Write what holds now."""
        now = self._now
        reason, message = now or (None, "")
        try:
            await self._thread.run(report, self._engine, self._run, self._reporter, reason, message)
        except (OSError, LookupError) as error:  # the ledger, or the run, is away: the operator sees that for itself
            log.warning("report not written", error=type(error).__name__)
        else:
            self._told = now
