"""Windows of the week as moments: against what the clocks show, minute by minute, in many zones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mailfleet_operator import windows
from mailfleet_operator.resources import WEEK, Day, Schedule, Window
from mailfleet_operator.windows import AHEAD, BEGINNING, Opening

ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Africa/Cairo",
    "America/Santiago", "Pacific/Chatham", "America/St_Johns", "Pacific/Apia",
]  # fmt: skip
# Moments near changes of the clocks, among them half an hour (Lord Howe) and at midnight (Cairo, Santiago).
CHANGES = [
    "2026-03-29T01:00", "2026-10-25T01:00", "2026-03-08T07:00", "2026-11-01T06:00", "2026-04-04T15:00",
    "2026-10-03T15:30", "2026-04-23T22:00", "2026-10-29T21:00", "2026-04-05T03:00", "2026-09-06T04:00",
]  # fmt: skip
MINUTE = timedelta(minutes=1)


def schedule(*given: tuple[str, str, str], zone: str = "UTC", **more: Any) -> Schedule:
    """Windows as ("Mon Fri", "08:00", "20:00")."""
    listed = [{"days": days.split(), "from": first, "to": last} for days, first, last in given]
    return Schedule.model_validate({"windows": listed, "timeZone": zone, **more})


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def opened(found: Schedule, now: str, count: int = 1) -> list[str]:
    """The next openings as "start/end", to the minute."""
    coming = windows.openings(found, utc(now))[:count]
    return [f"{o.start:%m-%dT%H:%M}/{o.end:%m-%dT%H:%M}" for o in coming if o.end]


@st.composite
def times_of_day(draw: st.DrawFn) -> str:
    # Around the hours in which clocks are changed, and anywhere.
    minute = draw(st.one_of(st.integers(0, 1439), st.sampled_from([0, 60, 90, 120, 150, 180, 1380, 1410, 1439])))
    return f"{minute // 60:02}:{minute % 60:02}"


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    def window() -> Window:
        first, last = draw(st.lists(times_of_day(), min_size=2, max_size=2, unique=True))
        last = draw(st.sampled_from([last, "24:00"]))
        days = draw(st.lists(st.sampled_from(Day), max_size=7, unique=True))
        return Window.model_validate({"days": days, "from": first, "to": last})

    made = [window() for _ in range(draw(st.integers(1, 3)))]
    return Schedule(windows=tuple(made), time_zone=draw(st.sampled_from(ZONES)))


@st.composite
def moments(draw: st.DrawFn) -> datetime:
    near = utc(draw(st.sampled_from(CHANGES)))
    return near + timedelta(seconds=draw(st.integers(-2 * 86_400, 2 * 86_400)))


def shown_within(found: Schedule, moment: datetime) -> bool:
    """By hand: whether the clocks show a time that one of the windows names, on a day on which it began."""
    shown = moment.astimezone(ZoneInfo(found.time_zone))
    text, today = f"{shown:%H:%M}", WEEK[shown.weekday()]
    yesterday = WEEK[(shown.weekday() - 1) % 7]
    for window in found.windows:
        days = window.days or WEEK
        if window.from_ < window.to:
            if today in days and window.from_ <= text < window.to:
                return True
        elif (today in days and text >= window.from_) or (yesterday in days and text < window.to):
            return True
    return False


@given(schedules(), moments())
def test_a_moment_is_open_exactly_if_the_clocks_show_a_time_within_a_window(found: Schedule, now: datetime) -> None:
    coming = windows.openings(found, now)
    for minutes in range(0, 3 * 1440, 7):
        moment = now + minutes * MINUTE
        assert any(o.holds(moment) for o in coming) == shown_within(found, moment), moment
    assert (windows.present(found, now) is not None) == shown_within(found, now)


@given(schedules(), moments())
def test_openings_open_and_close_where_the_clocks_say_so_to_the_second(found: Schedule, now: datetime) -> None:
    second = timedelta(seconds=1)
    horizon = windows.openings(found, now)[-1:]
    for opening in windows.openings(found, now):
        assert opening.end
        assert opening.start < opening.end
        assert shown_within(found, opening.start)
        assert shown_within(found, opening.end - second)
        if opening.start > now:
            assert not shown_within(found, opening.start - second)
        if [opening] != list(horizon):
            assert not shown_within(found, opening.end)


@given(schedules(), moments())
def test_openings_are_in_order_apart_and_not_over(found: Schedule, now: datetime) -> None:
    coming = windows.openings(found, now)
    assert all(o.end and o.end > now for o in coming)
    assert all(a.end and a.end < b.start for a, b in pairwise(coming))


@given(schedules(), moments(), st.integers(0, 3600 * 40))
def test_they_are_the_same_until_one_ends_or_a_day_begins(found: Schedule, now: datetime, seconds: int) -> None:
    later = now + timedelta(seconds=seconds)
    first, second = windows.openings(found, now), windows.openings(found, later)
    if now.date() == later.date():
        assert second == tuple(o for o in first if o.end and o.end > later)
    else:  # what was told ahead still holds
        known = [o for o in first if o.end and later < o.end < now + AHEAD - timedelta(days=3)]
        assert [o.end for o in second[: len(known)]] == [o.end for o in known]


@given(schedules(), moments(), st.integers(1, 86_400 * 2))
def test_the_end_time_cuts_them_off(found: Schedule, now: datetime, seconds: int) -> None:
    end = now + timedelta(seconds=seconds)
    cut = found.model_copy(update={"end_time": end})
    for minutes in range(0, 3 * 1440, 31):
        moment = now + minutes * MINUTE
        wanted = moment < end and shown_within(found, moment)
        assert any(o.holds(moment) for o in windows.openings(cut, now)) == wanted


@given(schedules(), moments(), st.integers(1, 86_400))
def test_work_is_done_when_as_much_time_was_open(found: Schedule, now: datetime, seconds: int) -> None:
    work = timedelta(seconds=seconds)
    at = windows.worked_off(found, now, work)
    if at is not None:
        coming = [o for o in windows.openings(found, now) if o.start < at]
        total = sum(((min(o.end or at, at) - max(o.start, now)) for o in coming), timedelta())
        assert total == work
        assert windows.time_left(found.model_copy(update={"end_time": at}), now) in {work, None}


class TestByExample:
    def test_without_windows_it_is_always_open(self) -> None:
        assert windows.openings(Schedule(), utc("2026-06-01T00:00")) == (Opening(BEGINNING, None),)

    def test_without_windows_the_end_time_is_the_end(self) -> None:
        found = Schedule(end_time=utc("2026-06-02T00:00"))
        assert windows.openings(found, utc("2026-06-01T00:00")) == (Opening(BEGINNING, utc("2026-06-02T00:00")),)
        assert windows.openings(found, utc("2026-06-02T00:00")) == ()

    def test_office_hours_in_berlin(self) -> None:
        office = schedule(("Mon Tue Wed Thu Fri", "08:00", "20:00"), zone="Europe/Berlin")
        # A Friday evening in summer: the next opening is on Monday, two hours before UTC.
        assert opened(office, "2026-07-03T18:00") == ["07-06T06:00/07-06T18:00"]

    def test_across_midnight_it_belongs_to_the_day_on_which_it_begins(self) -> None:
        night = schedule(("Fri", "22:00", "02:00"))
        assert opened(night, "2026-07-04T01:59") == ["07-03T22:00/07-04T02:00"]
        assert opened(night, "2026-07-04T02:00") == ["07-10T22:00/07-11T02:00"]

    def test_windows_that_touch_are_one(self) -> None:
        found = schedule(("Mon", "20:00", "24:00"), ("Tue", "00:00", "03:00"))
        assert opened(found, "2026-07-06T00:00") == ["07-06T20:00/07-07T03:00"]

    def test_an_hour_that_is_left_out_is_lost(self) -> None:
        early = schedule(("Sun", "02:30", "04:00"), zone="Europe/Berlin")
        assert opened(early, "2026-03-28T12:00") == ["03-29T01:00/03-29T02:00"]

    def test_a_window_that_is_left_out_comes_a_week_later(self) -> None:
        lost = schedule(("Sun", "02:15", "02:45"), zone="Europe/Berlin")
        assert opened(lost, "2026-03-28T12:00") == ["04-05T00:15/04-05T00:45"]

    def test_an_hour_that_is_shown_twice_counts_twice(self) -> None:
        twice = schedule(("Sun", "02:15", "02:45"), zone="Europe/Berlin")
        assert opened(twice, "2026-10-24T12:00", 2) == ["10-25T00:15/10-25T00:45", "10-25T01:15/10-25T01:45"]

    def test_a_day_with_25_hours_is_open_for_25_hours(self) -> None:
        day = schedule(("Sun", "00:00", "24:00"), zone="Europe/Berlin")
        assert opened(day, "2026-10-24T12:00") == ["10-24T22:00/10-25T23:00"]

    def test_two_days_of_work_in_an_eight_hour_window_take_a_weekend_more(self) -> None:
        office = schedule(("Mon Tue Wed Thu Fri", "08:00", "16:00"))
        assert windows.worked_off(office, utc("2026-07-03T12:00"), timedelta(hours=8)) == utc("2026-07-06T12:00")

    @pytest.mark.parametrize(
        "bad", [{"windows": [{"from": "8:00", "to": "20:00"}]}, {"timeZone": "Mars/Olympus"}, {"timeZone": "../x"}]
    )
    def test_what_the_definition_cannot_refuse_is_refused_when_it_is_read(self, bad: dict[str, Any]) -> None:
        with pytest.raises(ValidationError, match=r"time of day|time zone"):
            Schedule.model_validate(bad)
