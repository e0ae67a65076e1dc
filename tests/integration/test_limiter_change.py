"""Limits that change while permits are out, gates, and clocks that lie, in virtual time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mailfleet_sender.contract.rate import Rate
from mailfleet_sender.limiter import Why
from virtual_fleet import ACCOUNT, VirtualFleet, fullest_second, in_force_after, longest_silence

SPEEDS = [("14/s", 3), ("14/s", 20), ("100/s", 8), ("1000/s", 8)]


def started(url: str, rate: str, pods: int) -> VirtualFleet:
    fleet = VirtualFleet(url, rate)
    for _ in range(pods):
        fleet.pod()
    return fleet


@pytest.mark.parametrize("pods", [1, 20])
@pytest.mark.parametrize(("old", "new"), [("1/m", "100/s"), ("14/s", "28/s"), ("100/s", "1000/s")])
def test_a_raised_limit_is_in_force_within_a_second(redis_url: str, old: str, new: str, pods: int) -> None:
    with started(redis_url, old, pods) as fleet:
        fleet.run(20)
        fleet.set_rate(new)
        fleet.run(30)
        limit = fleet.rate.per_second
        assert in_force_after(fleet.used(), 20, int(0.93 * limit)) <= 1.0
        assert fullest_second(fleet.used()) <= limit + fleet.rate.burst + 1


@pytest.mark.parametrize("pods", [1, 20])
@pytest.mark.parametrize(("old", "new"), [("100/s", "1/m"), ("1000/s", "100/s"), ("10000/s", "10/s")])
def test_a_lowered_limit_is_in_force_within_a_second(redis_url: str, old: str, new: str, pods: int) -> None:
    with started(redis_url, old, pods) as fleet:
        fleet.run(5)
        fleet.set_rate(new)
        fleet.run(25)
        former, limit = Rate.parse(old), fleet.rate.per_second
        assert fullest_second(fleet.used()) <= former.per_second + former.burst
        assert fullest_second(fleet.used(6.05)) <= limit + fleet.rate.burst
        assert len(fleet.used(6.05)) <= limit * 19 + fleet.rate.burst


def test_a_limit_raised_and_lowered_again_and_again_never_falls_silent(redis_url: str) -> None:
    with started(redis_url, "100/s", 4) as fleet:
        for second in range(10, 30, 2):
            fleet.run(second)
            fleet.set_rate("14/s" if second % 4 else "100/s")
        assert longest_silence(fleet.used()) < 1.2
        assert fullest_second(fleet.used()) <= 1.25 * 100 + 10


@pytest.mark.parametrize(("rate", "pods"), SPEEDS)
@pytest.mark.parametrize("step", [30, -30, 1.9, 0.5, -0.5])
def test_a_stepped_clock_neither_doubles_the_rate_nor_silences_the_fleet(
    redis_url: str, rate: str, pods: int, step: float
) -> None:
    with started(redis_url, rate, pods) as fleet:
        fleet.run(8)
        fleet.clock_offset = step
        fleet.run(18)
        assert fullest_second(fleet.used()) <= fleet.rate.per_second + fleet.rate.burst
        assert longest_silence(fleet.used(7.5, 17.5)) < 1.1
        assert fleet.mean(11, 18) == pytest.approx(fleet.rate.per_second, rel=0.03)


@pytest.mark.parametrize(("rate", "pods"), SPEEDS)
def test_a_redis_that_forgets_everything_is_seeded_again_and_no_second_is_fuller_for_it(
    redis_url: str, rate: str, pods: int
) -> None:
    with started(redis_url, rate, pods) as fleet:
        fleet.run(8)
        fleet.redis.flushall()
        fleet.run(18)
        assert fullest_second(fleet.used()) <= fleet.rate.per_second + fleet.rate.burst
        assert longest_silence(fleet.used(7.5, 17.5)) < 1.1
        assert fleet.mean(11, 18) == pytest.approx(fleet.rate.per_second, rel=0.03)


@pytest.mark.parametrize(("rate", "pods"), SPEEDS)
@pytest.mark.parametrize("seconds", [1, 3])
def test_a_fleet_that_stood_still_does_not_make_up_for_it(redis_url: str, rate: str, pods: int, seconds: float) -> None:
    with started(redis_url, rate, pods) as fleet:
        fleet.run(8)
        for pod in fleet.pods:
            pod.stall(seconds)
        fleet.run(20)
        assert fullest_second(fleet.used()) <= fleet.rate.per_second + fleet.rate.burst + 1
        assert fleet.mean(8 + seconds + 2, 20) == pytest.approx(fleet.rate.per_second, rel=0.03)


def test_a_paused_campaign_stops_within_a_second_and_leaves_the_rate_to_the_others(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        paused = fleet.pod("a")
        fleet.pod("b")
        fleet.run(10)
        fleet.admin.set_campaign(ACCOUNT, "a", paused=True)
        fleet.run(20)
        assert fleet.used(11.1, 20, "a") == []
        assert fleet.mean(12, 20, "b") == pytest.approx(100, rel=0.02)
        assert paused.refusals[-1].why is Why.PAUSED
        fleet.admin.set_campaign(ACCOUNT, "a", paused=False)
        fleet.run(30)
        assert fleet.mean(22, 30, "a") == pytest.approx(50, rel=0.05)
        assert fullest_second(fleet.used()) <= 1.25 * 100 + 10


def test_a_paused_account_stops_all_and_goes_on(redis_url: str) -> None:
    with started(redis_url, "100/s", 8) as fleet:
        fleet.run(10)
        fleet.admin.set_paused(ACCOUNT, paused=True)
        fleet.run(20)
        assert fleet.used(11.1, 20) == []
        fleet.admin.set_paused(ACCOUNT, paused=False)
        fleet.run(30)
        assert fleet.mean(22, 30) == pytest.approx(100, rel=0.02)
        assert fullest_second(fleet.used()) <= 110


def test_no_permit_is_booked_after_the_window_has_closed(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        closes = fleet.pod("a")
        fleet.pod("b")
        fleet.admin.set_campaign(ACCOUNT, "a", open_until=fleet.moment(10))
        fleet.run(20)
        assert fleet.mean(3, 10, "a") == pytest.approx(50, rel=0.05)
        assert fleet.used(11.1, 20, "a") == []
        assert closes.refusals[-1].why is Why.CLOSED
        fleet.admin.set_campaign(ACCOUNT, "a", open_until=fleet.moment(100))
        fleet.run(30)
        assert fleet.mean(22, 30, "a") == pytest.approx(50, rel=0.05)


def test_windows_that_were_told_ahead_close_and_open_by_themselves(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        pod = fleet.pod("a")
        coming = [(fleet.moment(20), fleet.moment(30)), (fleet.moment(40), fleet.moment(50))]
        fleet.admin.set_campaign(ACCOUNT, "a", open_until=fleet.moment(10), reopens=coming)
        fleet.run(60)
        for opens, closes in ((0, 10), (20, 30), (40, 50)):
            assert fleet.mean(opens + 3, closes, "a") == pytest.approx(100, rel=0.02)
            assert fleet.used(closes + 1.1, closes + 10, "a") == []
        assert len(fleet.used(20, 23, "a")) > 0
        assert fullest_second(fleet.used()) <= 110
        assert pod.refusals[-1].why is Why.CLOSED


def test_a_campaign_told_that_it_is_closed_waits_for_its_first_window(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        fleet.pod("a")
        closed = datetime.fromtimestamp(0, UTC)
        fleet.admin.set_campaign(ACCOUNT, "a", open_until=closed, reopens=[(fleet.moment(10), fleet.moment(20))])
        fleet.run(30)
        assert fleet.used(0, 10, "a") == []
        assert fleet.mean(13, 20, "a") == pytest.approx(100, rel=0.02)
        assert fleet.used(21.1, 30, "a") == []
        with pytest.raises(ValueError, match="by turns, in order"):
            fleet.admin.set_campaign(ACCOUNT, "a", open_until=fleet.moment(9), reopens=[(closed, closed)])
