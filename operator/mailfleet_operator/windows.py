"""When mail may be sent: windows of the week by the clocks of a time zone, as moments. Pure.

A moment lies in a window if the zone's clocks then show a time within it. So where clocks are put forward, a
window loses the hour that is left out; where they are put back, an hour that is shown twice counts twice. A
window belongs to the day on which it begins, also where it goes on after midnight.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .resources import Schedule, Window

AHEAD = timedelta(days=15)
"""How far windows are looked up: each window comes once a week, and in one of two weeks if a change of clocks
leaves it out."""
MIDNIGHT = 24 * 60
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
"""Where a time without windows begins."""
STEP = timedelta(hours=6)
"""No zone changes its clocks twice within this time."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A time in which mail may be sent, in UTC: `start` belongs to it, `end` (None: there is none) does not."""

    start: datetime
    end: datetime | None

    def holds(self, moment: datetime) -> bool:
        """Whether a moment lies in it."""
        return self.start <= moment and (self.end is None or moment < self.end)


def openings(schedule: Schedule, now: datetime) -> tuple[Opening, ...]:
    """The openings that have not ended, the present one first, as far as `AHEAD`; cut off at the end time.

    Without windows it is one opening. What it returns changes only when an opening ends or a day begins.
    """
    found: Iterable[Opening] = (Opening(BEGINNING, None),)
    if schedule.windows:
        found = _of_days(schedule.windows, schedule.time_zone, now.astimezone(UTC).date())
    end = schedule.end_time.astimezone(UTC) if schedule.end_time else None
    return tuple(o for o in _cut(found, end) if o.end is None or now < o.end)


def present(schedule: Schedule, now: datetime) -> Opening | None:
    """The opening of this moment; None: it is closed."""
    return next((o for o in openings(schedule, now) if o.holds(now)), None)


def next_start(schedule: Schedule, now: datetime) -> datetime | None:
    """This moment if it is open, else when it opens; None: never, as far as can be seen."""
    coming = openings(schedule, now)
    return max(now, coming[0].start) if coming else None


def worked_off(schedule: Schedule, now: datetime, work: timedelta) -> datetime | None:
    """When so much time of sending has passed, from `now` on; None: not as far as can be seen."""
    for opening in openings(schedule, now):
        start = max(now, opening.start)
        if opening.end is None or work <= opening.end - start:
            return start + work
        work -= opening.end - start
    return None


def time_left(schedule: Schedule, now: datetime) -> timedelta | None:
    """How much time of sending is left until the end time; None: there is no end, or it cannot be seen from here."""
    if schedule.end_time is None or (schedule.windows and schedule.end_time > now + AHEAD - timedelta(days=1)):
        return None
    return sum(((o.end or now) - max(now, o.start) for o in openings(schedule, now)), timedelta())


def is_open(windows: tuple[Window, ...], zone: ZoneInfo, moment: datetime) -> bool:
    """Whether the zone's clocks show a time within one of the windows."""
    shown = moment.astimezone(zone)
    today, minute = shown.date(), shown.hour * 60 + shown.minute
    yesterday = today - timedelta(days=1)
    for window in windows:
        first, last = window.first_minute, window.last_minute
        over_midnight = last <= first
        if window.includes(today) and first <= minute and (over_midnight or minute < last):
            return True
        if over_midnight and window.includes(yesterday) and minute < last:
            return True
    return False


def _cut(found: Iterable[Opening], end: datetime | None) -> Iterator[Opening]:
    for opening in found:
        if end is None or (opening.end is not None and opening.end <= end):
            yield opening
        elif opening.start < end:
            yield Opening(opening.start, end)


@lru_cache(maxsize=256)
def _of_days(windows: tuple[Window, ...], time_zone: str, today: date) -> tuple[Opening, ...]:
    """From two days before `today` on; kept, since campaigns are looked at all the time."""
    zone = ZoneInfo(time_zone)
    start = datetime.combine(today - timedelta(days=2), time(), UTC)
    end = datetime.combine(today, time(), UTC) + AHEAD
    moments = sorted({start, *_turns(windows, zone, start, end), end})
    found: list[Opening] = []
    for moment, following in pairwise(moments):
        if not is_open(windows, zone, moment):
            continue
        if found and found[-1].end == moment:
            found[-1] = Opening(found[-1].start, following)
        else:
            found.append(Opening(moment, following))
    return tuple(found)


def _turns(windows: tuple[Window, ...], zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[datetime]:
    """All moments at which something may open or close: times at which windows begin and end, in both passes of an
    hour that is shown twice, and changes of the clocks."""
    minutes = {m % MIDNIGHT for w in windows for m in (w.first_minute, w.last_minute)}
    day = start.astimezone(zone).date()
    while day <= end.astimezone(zone).date():
        for minute in minutes:
            for fold in (0, 1):
                shown = datetime.combine(day, time(minute // 60, minute % 60, fold=fold), zone)
                if start < (moment := shown.astimezone(UTC)) < end:
                    yield moment
        day += timedelta(days=1)
    moment = start
    while moment < end:
        if (change := _change_of_clocks(zone, moment, moment + STEP)) is not None:
            yield change
        moment += STEP


def _change_of_clocks(zone: ZoneInfo, low: datetime, high: datetime) -> datetime | None:
    """The second in which the zone's offset from UTC changes between two moments; None: it does not."""
    before = low.astimezone(zone).utcoffset()
    if before == high.astimezone(zone).utcoffset():
        return None
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=int((high - low).total_seconds()) // 2)
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high
