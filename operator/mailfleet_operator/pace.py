"""How fast a run goes, from samples of its totals. Pure; the operator keeps one for each run it sees."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailfleet_sender.contract.accounts import Totals

WINDOW = timedelta(seconds=20)
"""Long enough to even out batches, short enough to show a pause."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Recipients that have come to a verdict since the operator watches, at a time."""

    at: datetime
    done: int


@dataclass(frozen=True, slots=True)
class Pace:
    """Samples of the last `WINDOW` and the time of the last progress."""

    samples: tuple[Sample, ...] = ()
    verdicts: int = 0
    deferred: int = 0
    moved_at: datetime | None = None

    def seen(self, totals: Totals, at: datetime) -> Pace:
        """With one more sample.

        A deferred recipient counts when it is deferred and again when it is decided: both were attempts.
        """
        verdicts = totals.sent + totals.failed + totals.suppressed + totals.skipped + totals.uncertain
        if not self.samples:
            return Pace((Sample(at, 0),), verdicts, totals.deferred, at)
        last = self.samples[-1]
        gained = max(0, verdicts - self.verdicts) + max(0, totals.deferred - self.deferred)
        kept = tuple(s for s in self.samples if at - s.at <= WINDOW)
        samples = (*kept, Sample(at, last.done + gained)) if at > last.at else self.samples
        return Pace(samples, verdicts, totals.deferred, at if gained else self.moved_at)

    @property
    def per_second(self) -> float:
        """Attempts a second over the window."""
        if len(self.samples) < 2:
            return 0.0
        first, last = self.samples[0], self.samples[-1]
        seconds = (last.at - first.at).total_seconds()
        return (last.done - first.done) / seconds if seconds > 0 else 0.0

    def still_for(self, now: datetime) -> timedelta:
        """Since when nothing moved."""
        return now - self.moved_at if self.moved_at else timedelta(0)
