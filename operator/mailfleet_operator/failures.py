"""Why recipients fail, counted seldom: a tick comes each two seconds, a count of a million takes a good part of one.

docs/decisions/0111.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from mailfleet_sender.errors import LedgerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailfleet_sender.contract.accounts import Failure, Totals
    from mailfleet_sender.ledger import RunRow

SHOWN = 5
PAUSE_SECONDS, SHARE = 30.0, 100
"""Between two counts of one run, and how many times longer than a count the pause is at least: 1 % of a connection."""
ROUND_SECONDS = 0.25
"""Counting in one look at all campaigns begins no other count after this: the others wait for the next."""
KEPT = 1000

log = structlog.get_logger()


class Count(Protocol):
    """See `Runs.failures`."""

    def __call__(self, run_id: int, most: int, *, retried: bool) -> tuple[Failure, ...]: ...


@dataclass(frozen=True, slots=True)
class _Counted:
    """What was found, for which totals (None: the last attempt failed), of a run that had ended or not, and when it
    may be counted again."""

    found: tuple[Failure, ...] | None
    seen: object
    ended: bool
    again_at: float


class Failures:
    """Counts of runs. Used from several threads: two that count the same run at once do no harm."""

    def __init__(self, count: Count, clock: Callable[[], float] = time.monotonic) -> None:
        self._count, self._clock = count, clock
        self._known: dict[int, _Counted] = {}
        self._round_ends = 0.0

    def begin(self) -> None:
        """A look at many runs begins."""
        self._round_ends = self._clock() + ROUND_SECONDS

    def of(self, run: RunRow, totals: Totals) -> tuple[Failure, ...] | None:
        """The most frequent reasons; None: not known yet, it is asked again at the next look."""
        if not totals.failed:
            return ()
        retried, ended = run.retry_generation > 0, run.ended_at is not None
        seen: Totals | int | None = totals if retried else totals.failed
        known, now = self._known.get(run.id), self._clock()
        found = known.found if known else None
        if known and (known.seen == seen or (now < known.again_at and known.ended == ended)):
            return found
        if now > self._round_ends:
            return found
        try:
            found = self._count(run.id, SHOWN, retried=retried)
        except LedgerUnavailable as error:
            seen = None
            log.warning("why recipients failed was not counted", run=run.id, why=str(error))
        took = self._clock() - now
        if len(self._known) >= KEPT:
            self._known.clear()
        self._known[run.id] = _Counted(found, seen, ended, now + max(PAUSE_SECONDS, SHARE * took))
        return found
