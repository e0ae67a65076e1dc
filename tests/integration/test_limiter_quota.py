"""The quota of a relay in virtual time: whole days, in any window, whatever Redis forgets."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailfleet_sender.contract.relay import Quota
from mailfleet_sender.limiter import Why
from virtual_fleet import ACCOUNT, VirtualFleet, fullest_second

if TYPE_CHECKING:
    from services import RedisServer

HOUR = 3600.0
DAY = 24 * HOUR


def rolling(messages: int) -> Quota:
    return Quota(messages=messages)


def test_a_quota_is_used_to_the_last_permit_and_the_refusal_says_until_when(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        fleet.set(quota=rolling(500))
        pods = [fleet.pod() for _ in range(4)]
        fleet.run(30)
        assert len(fleet.used()) == 500
        refusal = pods[0].refusals[-1]
        assert refusal.why is Why.QUOTA
        assert refusal.after_seconds <= 1.9
        assert DAY - 30 <= refusal.room_seconds <= DAY + 600
        quota = fleet.state().quota
        assert quota is not None
        assert (quota.messages, quota.used, quota.left) == (500, 500, 0)
        assert quota.room_at is not None
        left = (quota.room_at - fleet.moment(fleet.now)).total_seconds()
        assert left == pytest.approx(refusal.room_seconds, abs=2)


def test_a_campaign_that_waits_for_the_quota_is_not_hungry(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        fleet.set(quota=rolling(300))
        fleet.pod("a")
        fleet.run(20)
        assert fleet.state().campaigns["a"].hungry_pods == 0


def test_a_raised_quota_lets_the_fleet_go_on_within_two_seconds_and_a_lowered_one_stops_it(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        fleet.set(quota=rolling(300))
        fleet.pod()
        fleet.run(20)
        assert len(fleet.used()) == 300
        fleet.set(quota=rolling(2_000))
        fleet.run(30)
        assert len(fleet.used(22, 30)) == pytest.approx(800, rel=0.05)
        fleet.set(quota=rolling(1_000))
        fleet.run(40)
        assert fleet.used(32, 40) == []


def test_permits_that_were_not_used_are_given_back(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        fleet.set(quota=rolling(700))
        fleet.pod(per_second=30)
        fleet.pod()
        fleet.run(30)
        assert fleet.dropped() > 0
        assert len(fleet.used()) == 700


@given(
    rate=st.sampled_from(["10/m", "1/s", "20/s", "100/s"]),
    messages=st.integers(20, 800),
    pods=st.lists(st.tuples(st.floats(0, 40 * HOUR), st.sampled_from([None, 0.3, 0.01])), min_size=1, max_size=3),
    flushes=st.lists(st.floats(1, 55 * HOUR), max_size=3),
    changes=st.lists(st.tuples(st.floats(1, 55 * HOUR), st.integers(20, 800)), max_size=2),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_24_hours_ever_hold_more_than_the_quota(
    redis_server: RedisServer,
    rate: str,
    messages: int,
    pods: list[tuple[float, float | None]],
    flushes: list[float],
    changes: list[tuple[float, int]],
    seed: int,
) -> None:
    with VirtualFleet(redis_server.url, rate, seed=seed) as fleet:
        fleet.set(quota=rolling(messages))
        for start, part in pods:
            rows = part and part * messages / DAY * 10
            fleet.pod(start=start, rows_per_second=rows, sleeps_on_quota=900)
        highest = messages
        steps: list[tuple[float, Any]] = [(at, None) for at in flushes] + [(at, n) for at, n in changes]
        for at, value in sorted(steps, key=lambda step: step[0]):
            fleet.run(at)
            if value is None:
                fleet.redis.flushall()
            else:
                highest = max(highest, value)
                fleet.set(quota=rolling(value))
        fleet.run(60 * HOUR)
        assert fullest_second(fleet.used(), DAY) <= highest
        assert fleet.used()


def test_a_day_begins_at_midnight_of_its_zone_also_when_summer_time_ends(redis_url: str) -> None:
    with VirtualFleet(redis_url, "2/s") as fleet:
        fleet.now = 31 * DAY  # 22 October 2026; summer time ends in Berlin on the 25th
        fleet.set(quota=Quota.model_validate({"messages": 400, "window": "Day", "timeZone": "Europe/Berlin"}))
        fleet.pod(sleeps_on_quota=600)
        fleet.run(38 * DAY)
        zone = ZoneInfo("Europe/Berlin")
        days = Counter(fleet.moment(t).astimezone(zone).date().isoformat() for t in fleet.used())
        assert set(days.values()) == {400}
        assert "2026-10-25" in days
        assert len(days) == 8
        first_of_the_day = min(t for t in fleet.used() if fleet.moment(t).astimezone(zone).day == 26)
        assert fleet.moment(first_of_the_day).hour == 23, "midnight is at 23:00 UTC again"


def test_a_fleet_that_is_told_of_no_more_midnights_asks_for_them(redis_url: str) -> None:
    with VirtualFleet(redis_url, "1/m") as fleet:
        fleet.set(quota=Quota.model_validate({"messages": 5, "window": "Day"}))
        fleet.pod(sleeps_on_quota=20_000)
        fleet.run(80 * DAY)
        assert len(fleet.used(70 * DAY, 80 * DAY)) >= 45


def test_another_window_counts_what_the_ledger_recorded(redis_url: str) -> None:
    with VirtualFleet(redis_url, "10/s") as fleet:
        fleet.set(quota=Quota.model_validate({"messages": 100, "window": "Day"}))
        fleet.pod(sleeps_on_quota=60)
        fleet.run(20 * HOUR)  # past one midnight (UTC)
        assert len(fleet.used()) == 200
        fleet.set(quota=rolling(250))
        fleet.run(22 * HOUR)
        assert len(fleet.used()) == 250


def test_a_redis_that_lost_the_quota_sends_nothing_until_the_ledger_was_asked(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        fleet.set(quota=rolling(1_000))
        fleet.pod()
        fleet.run(8)
        fleet.redis.flushall()
        fleet.run(9)
        assert fleet.state().quota is not None
        assert fleet.state().quota.used is None
        fleet.run(60)
        assert len(fleet.used()) == 1_000
        assert fleet.admin.state(ACCOUNT).quota is not None


def test_a_quota_that_was_used_at_once_has_room_after_24_hours_and_at_most_ten_minutes(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        fleet.set(quota=rolling(500))
        fleet.pod(sleeps_on_quota=20)
        fleet.run(25 * HOUR)
        used = fleet.used()
        assert len(used) == 1_000
        assert used[500] - used[499] >= DAY
        assert used[500] - used[0] <= DAY + 650


@pytest.mark.parametrize("before", [6, 9, 11, 12, 12.5, 13, 14])
def test_no_permit_of_a_day_is_used_in_the_next(redis_url: str, before: float) -> None:
    midnight = 35_200.0  # UTC; virtual time begins at 14:13:20
    with VirtualFleet(redis_url, "100/s") as fleet:
        fleet.now = midnight - before
        fleet.set(quota=Quota.model_validate({"messages": 900, "window": "Day"}))
        for _ in range(3):
            fleet.pod()
        fleet.run(midnight + 30)
        assert len(fleet.used(until=midnight)) <= 900
        assert len(fleet.used(midnight)) == 900
        assert fleet.used(until=midnight)[-1] < midnight - 0.01
