"""The control law: how many senders are worth their memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_operator import scaling
from mailfleet_operator.scaling import Bounds, Load, Memory, decide, first_size, range_size

NOW = datetime(2026, 12, 1, 8, 0, tzinfo=UTC)
ANY = Bounds(1, 20)


def load(limit: float = 1000, rate: float = 500, senders: int = 1, **changes: float) -> Load:
    base = Load(limit=limit, rate=rate, account_rate=rate, senders=senders, open_ranges=100)
    return replace(base, **changes)


def rested(seconds: float = 600, **changes: object) -> Memory:
    return replace(Memory(changed_at=NOW - timedelta(seconds=seconds)), **changes)


class TestFirstSize:
    @pytest.mark.parametrize(("limit", "size"), [(1000, 2), (500, 1), (0.5, 1), (100_000, 20)])
    def test_what_the_rate_needs_at_the_assumed_speed(self, limit: float, size: int) -> None:
        assert first_size(limit, ANY) == size

    def test_within_the_bounds(self) -> None:
        assert first_size(1, Bounds(3, 8)) == 3


class TestRangeSize:
    def test_about_five_minutes_of_a_senders_work(self) -> None:
        assert range_size(asked=None, planned=10_000_000, limit=100, senders=1) == 30_000

    def test_enough_ranges_for_twice_the_senders(self) -> None:
        assert range_size(asked=None, planned=20_000, limit=1000, senders=2) == 5_000

    def test_never_too_small_to_be_worth_a_pod(self) -> None:
        assert range_size(asked=None, planned=1_500, limit=1000, senders=2) == 1_000

    def test_as_asked(self) -> None:
        assert range_size(asked=777, planned=20_000, limit=1000, senders=2) == 777

    @given(
        planned=st.integers(0, 200_000_000),
        limit=st.floats(0.0001, 1e6),
        senders=st.integers(1, 1000),
        asked=st.none() | st.integers(1, 10**7),
    )
    def test_no_job_has_more_than_ten_thousand_ranges(
        self, planned: int, limit: float, senders: int, asked: int | None
    ) -> None:
        size = range_size(asked=asked, planned=planned, limit=limit, senders=senders)
        assert size >= 1
        assert -(-planned // size) <= scaling.LARGEST_JOB


class TestGrowing:
    def test_a_fleet_that_leaves_permits_unused_grows_by_what_is_missing(self) -> None:
        size, memory = decide(load(limit=1000, rate=250, senders=1), 1, ANY, rested(), NOW)
        assert size == 2  # at most twice as many at once
        assert memory.rate_before == 250

    def test_not_before_its_pods_are_at_work(self) -> None:
        assert decide(load(rate=250, senders=1), 2, ANY, rested(), NOW) == (2, rested(0, best=250.0))

    def test_the_seconds_in_which_pods_start_are_no_lack_of_senders(self) -> None:
        """Two senders of 500/s and a limit of 1,000/s; the pods need eight seconds, the rate is a mean of twenty."""
        size, memory, now, sent = 2, Memory(), NOW, [0.0]
        for second in range(120):
            running = 2 if second >= 8 else 0
            sent.append(sent[-1] + 500 * running)
            rate = (sent[-1] - sent[max(0, len(sent) - 21)]) / min(20, len(sent) - 1)
            size, memory = decide(load(limit=1000, rate=rate, senders=running), size, ANY, memory, now)
            now += timedelta(seconds=1)
            assert size == 2, second

    def test_not_at_once_again(self) -> None:
        assert decide(load(rate=250), 1, ANY, rested(10), NOW)[0] == 1

    def test_not_if_the_last_growth_gained_nothing(self) -> None:
        memory = rested(rate_before=400.0)
        assert decide(load(rate=410, senders=2), 2, ANY, memory, NOW)[0] == 2

    def test_again_if_the_last_growth_helped(self) -> None:
        memory = rested(rate_before=250.0)
        assert decide(load(limit=2000, rate=500, senders=2), 2, ANY, memory, NOW)[0] == 4

    def test_not_while_others_use_the_relay_up(self) -> None:
        assert decide(load(rate=100, account_rate=990), 1, ANY, rested(), NOW)[0] == 1

    def test_not_while_nothing_moves(self) -> None:
        assert decide(load(rate=0), 1, ANY, rested(), NOW)[0] == 1

    def test_not_between_starved_and_saturated(self) -> None:
        assert decide(load(rate=960, senders=2), 2, ANY, rested(), NOW)[0] == 2


class TestShrinking:
    def test_a_saturated_fleet_is_shrunk_when_the_others_are_known_to_suffice(self) -> None:
        memory = rested(best=2000.0)
        assert decide(load(rate=1000, senders=3), 3, ANY, memory, NOW)[0] == 2

    def test_a_small_fleet_is_not_shrunk_on_a_guess(self) -> None:
        assert decide(load(rate=1000, senders=2), 2, ANY, rested(), NOW)[0] == 2

    def test_of_a_large_fleet_one_less_is_tried(self) -> None:
        assert decide(load(rate=1000, senders=8), 8, ANY, rested(), NOW)[0] == 7

    def test_not_below_a_size_that_proved_too_small(self) -> None:
        memory = rested(floor=8, floor_until=NOW + timedelta(minutes=5))
        assert decide(load(rate=1000, senders=8), 8, ANY, memory, NOW)[0] == 8

    def test_what_proved_too_small_is_tried_again_later(self) -> None:
        memory = rested(floor=8, floor_until=NOW - timedelta(seconds=1))
        assert decide(load(rate=1000, senders=8), 8, ANY, memory, NOW)[0] == 7

    def test_what_proved_too_small_for_a_high_limit_says_little_of_a_lower_one(self) -> None:
        """Six were too few for 2,000/s: that is no reason to keep them for 200/s, one tenth of it."""
        memory = rested(best=300.0, floor=7, floor_limit=2000.0, floor_until=NOW + timedelta(minutes=14))
        assert decide(load(limit=2000, rate=2000, senders=7), 7, ANY, memory, NOW)[0] == 7
        assert decide(load(limit=200, rate=200, senders=7), 7, ANY, memory, NOW)[0] == 6
        assert decide(load(limit=200, rate=200, senders=2), 2, ANY, memory, NOW)[0] == 1
        assert decide(load(limit=1950, rate=1950, senders=7), 7, ANY, memory, NOW)[0] == 7, "a little lower"
        assert decide(load(limit=9000, rate=9000, senders=7), 7, ANY, memory, NOW)[0] == 7, "nor of a higher one"

    def test_nothing_grows_within_a_minute_after_it_was_shrunk(self) -> None:
        shrunk = rested(30, shrunk_at=NOW - timedelta(seconds=30))
        assert decide(load(rate=800, senders=7), 7, ANY, shrunk, NOW)[0] == 7
        assert decide(load(rate=800, senders=7), 7, ANY, shrunk, NOW + timedelta(seconds=30))[0] == 9

    def test_not_in_a_hurry(self) -> None:
        assert decide(load(rate=1000, senders=8), 8, ANY, rested(60), NOW)[0] == 8

    def test_a_shrink_that_went_wrong_is_taken_back_and_remembered(self) -> None:
        size, memory = decide(load(rate=800, senders=7), 7, ANY, rested(30), NOW)
        assert size == 9
        assert (memory.floor, memory.floor_until) == (8, NOW + scaling.FLOOR_HOLDS)

    def test_also_when_fewer_ranges_are_left_than_senders_were_asked_for(self) -> None:
        """Found on a real node: one of four ranges was done, so the fourth pod was waited for, for ever."""
        few = load(limit=200, rate=200, senders=3, open_ranges=3)
        size, memory = decide(few, 4, ANY, rested(best=900.0), NOW)
        assert size == 3
        assert decide(few, 3, ANY, memory, NOW + timedelta(seconds=200))[0] == 2

    def test_not_before_all_pods_are_there_that_there_can_be(self) -> None:
        few = load(limit=200, rate=200, senders=2, open_ranges=3)
        assert decide(few, 4, ANY, rested(best=900.0), NOW)[0] == 4


class TestBounds:
    def test_bounds_hold_at_once(self) -> None:
        assert decide(load(senders=9), 9, Bounds(1, 4), rested(0), NOW)[0] == 4
        assert decide(load(senders=1), 1, Bounds(3, 4), rested(0), NOW)[0] == 3

    def test_growth_stops_at_the_ranges_that_are_open(self) -> None:
        assert decide(load(rate=100, senders=2, open_ranges=3), 2, ANY, rested(), NOW)[0] == 3

    def test_a_rate_next_to_nothing_doubles_the_fleet_at_most(self) -> None:
        assert decide(load(rate=5e-324, senders=2, open_ranges=50), 2, ANY, rested(), NOW)[0] == 4

    @given(
        limit=st.floats(0.01, 1e5),
        rate=st.floats(0, 1e5),
        others=st.floats(0, 1e5),
        senders=st.integers(0, 50),
        open_ranges=st.integers(1, 50),
        size=st.integers(1, 50),
        low=st.integers(1, 10),
        more=st.integers(0, 40),
        seconds=st.floats(0, 10_000),
        best=st.floats(0, 1e4),
    )
    def test_whatever_is_measured_the_bounds_hold(
        self,
        limit: float,
        rate: float,
        others: float,
        senders: int,
        open_ranges: int,
        size: int,
        low: int,
        more: int,
        seconds: float,
        best: float,
    ) -> None:
        measured = Load(limit, rate, rate + others, senders, open_ranges)
        bounds = Bounds(low, low + more)
        decided, _ = decide(measured, size, bounds, rested(seconds, best=best), NOW)
        assert min(low, open_ranges) <= decided <= low + more
        assert decided <= max(size, open_ranges)


def test_a_fleet_finds_its_size_and_keeps_it() -> None:
    """A simulated hour: one sender does 300/s, the relay takes 1,000/s. Two are asked for first; four are needed."""
    size, memory, now, sizes = first_size(1000, ANY), Memory(), NOW, []
    for _ in range(1800):
        rate = min(1000.0, 300.0 * size)
        size, memory = decide(load(limit=1000, rate=rate, senders=size), size, ANY, memory, now)
        now += timedelta(seconds=2)
        sizes.append(size)
    assert sizes[60] == 4
    assert set(sizes[60:]) == {4}


def test_a_fleet_that_is_too_large_shrinks_without_losing_the_rate_for_long() -> None:
    """One sender does 300/s, 12 were asked for: the fleet comes down to where the rate still holds."""
    size, memory, now, short = 12, Memory(), NOW, 0
    for _ in range(1800):
        rate = min(1000.0, 300.0 * size)
        short += rate < 950
        size, memory = decide(load(limit=1000, rate=rate, senders=size), size, ANY, memory, now)
        now += timedelta(seconds=2)
    assert size in {4, 5}
    assert short * 2 <= 0.01 * 3600


def test_near_the_end_no_sender_is_taken_away() -> None:
    """Ranges end one by one; the pod of a range that has ended may still be there, so the number stays."""
    for open_ranges in (3, 2, 1):
        assert decide(load(senders=4, open_ranges=open_ranges), 4, ANY, rested(), NOW)[0] == 4
