"""The whole fleet holds one rate, in virtual time: whoever comes, goes, stalls or shares."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from virtual_fleet import ACCOUNT, VirtualFleet, fullest_second

if TYPE_CHECKING:
    from services import RedisServer

MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("pods", [1, 3, 8, 20])
@pytest.mark.parametrize(("rate", "seconds"), [("14/s", 60), ("50/s", 60), ("100/s", 60), ("1000/s", 15)])
def test_any_number_of_pods_uses_the_whole_rate_and_no_second_holds_more_than_limit_and_burst(
    redis_url: str, rate: str, seconds: int, pods: int
) -> None:
    with VirtualFleet(redis_url, rate) as fleet:
        for _ in range(pods):
            fleet.pod()
        fleet.run(seconds)
        limit = fleet.rate.per_second
        assert fullest_second(fleet.used()) <= limit + fleet.rate.burst
        assert fleet.mean(3, seconds) == pytest.approx(limit, rel=0.005)
        assert fleet.dropped() == 0


def test_a_fleet_of_four_has_its_rate_from_its_first_permit_on(redis_url: str) -> None:
    with VirtualFleet(redis_url, "1000/s") as fleet:
        for _ in range(4):
            fleet.pod()
        fleet.run(12.0)
        used = fleet.used()
        assert 9_900 <= bisect_left(used, used[0] + 10) <= 10_000 + fleet.rate.burst
        assert fullest_second(used) <= 1_000 + fleet.rate.burst


def test_ten_thousand_a_second_hold_with_twenty_pods_of_twice_their_share_of_speed(redis_url: str) -> None:
    with VirtualFleet(redis_url, "10000/s") as fleet:
        for _ in range(20):
            fleet.pod(per_second=1000)
        fleet.run(6)
        assert fullest_second(fleet.used()) <= 10_000 + 1_000
        assert fleet.mean(2, 6) == pytest.approx(10_000, rel=0.005)
        assert fleet.dropped() == 0


def test_a_slow_pod_beside_a_fast_one_costs_no_slots(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        slow, fast = fleet.pod(per_second=10), fleet.pod()
        fleet.run(40)
        assert fleet.mean(5, 40) == pytest.approx(100, rel=0.02)
        assert len(slow.used) < 0.15 * len(fast.used)


def test_asking_costs_few_calls(redis_url: str) -> None:
    with VirtualFleet(redis_url, "1000/s") as fleet:
        for _ in range(8):
            fleet.pod()
        fleet.run(10)
        assert 50 * fleet.calls / len(fleet.used()) < 3


def test_a_round_trip_longer_than_the_grace_sends_nothing_rather_than_late(redis_url: str) -> None:
    with VirtualFleet(redis_url, "1000/s") as fleet:
        fleet.pod(round_trip=(0.3, 0.4))
        fleet.run(5)
        assert fleet.used() == []
        assert fleet.dropped() > 0


@given(
    rate=st.sampled_from(["10/m", "1/s", "14/s", "50/s", "100/s", "300/s"]),
    steps=st.lists(
        st.tuples(st.floats(0.01, 2), st.sampled_from(["come", "go", "flush"])), min_size=3, max_size=10
    ),
    seed=st.integers(0, 1000),
)  # fmt: skip
@example(rate="100/s", steps=[(1.0, "come"), (1.0, "flush"), (1.0, "flush"), (0.5, "go")], seed=0)
@MANY
def test_no_second_of_one_campaign_holds_more_than_limit_and_burst_while_pods_come_and_go(
    redis_server: RedisServer, rate: str, steps: list[tuple[float, str]], seed: int
) -> None:
    with VirtualFleet(redis_server.url, rate, seed=seed) as fleet:
        fleet.pod()
        for after, what in steps:
            fleet.run(fleet.now + after)
            if what == "come":
                fleet.pod()
            elif what == "flush":
                fleet.redis.flushall()
            else:
                fleet.random.choice(fleet.pods).gone = True
        fleet.run(fleet.now + 2)
        most = fleet.rate.per_second + fleet.rate.burst + len(fleet.pods)
        assert fullest_second(fleet.used()) <= most


@dataclass(frozen=True, slots=True)
class PodPlan:
    """A pod: whose it is, when it comes, and its speed and rows as parts of the limit."""

    campaign: str
    start: float
    speed: float | None
    rows: float | None


PODS = st.builds(
    PodPlan, st.sampled_from("abc"), st.floats(0, 6), st.sampled_from([None, None, 0.25]),
    st.sampled_from([None, None, 0.1]),
)  # fmt: skip
TROUBLE = st.one_of(
    st.tuples(st.sampled_from(["stall one", "stall all"]), st.floats(0.05, 3)),
    st.tuples(st.just("limit"), st.sampled_from(["10/m", "14/s", "100/s", "300/s"])),
    st.tuples(st.sampled_from(["flush", "go", "pause", "resume"]), st.none()),
)


@given(
    rate=st.sampled_from(["10/m", "14/s", "50/s", "100/s", "300/s"]),
    weights=st.tuples(*[st.sampled_from([1, 100, 300])] * 3),
    pods=st.lists(PODS, min_size=1, max_size=8),
    troubles=st.lists(st.tuples(st.floats(0.05, 2), TROUBLE), max_size=8),
    seed=st.integers(0, 1000),
)
@MANY
def test_whatever_happens_at_once_a_second_stays_within_a_fifth_more(
    redis_server: RedisServer,
    rate: str,
    weights: tuple[int, int, int],
    pods: list[PodPlan],
    troubles: list[tuple[float, tuple[str, Any]]],
    seed: int,
) -> None:
    """Batches of mixed sizes may crowd: docs/decisions/0020."""
    with VirtualFleet(redis_server.url, rate, seed=seed) as fleet:
        for campaign, weight in zip("abc", weights, strict=True):
            fleet.admin.set_campaign(ACCOUNT, campaign, weight=weight)
        limit = fleet.rate.per_second
        for pod in pods:
            fleet.pod(
                pod.campaign,
                start=pod.start,
                per_second=pod.speed and pod.speed * limit,
                rows_per_second=pod.rows and pod.rows * limit,
            )
        highest = fleet.rate
        for after, (what, value) in troubles:
            fleet.run(fleet.now + after)
            highest = max(highest, _strike(fleet, what, value), key=lambda r: r.per_second)
        fleet.run(fleet.now + 3)
        most = 1.2 * highest.per_second + highest.burst + len(pods)
        assert fullest_second(fleet.used()) <= most


def _strike(fleet: VirtualFleet, what: str, value: Any) -> Any:
    match what:
        case "stall one":
            fleet.random.choice(fleet.pods).stall(value)
        case "stall all":
            for pod in fleet.pods:
                pod.stall(value)
        case "limit":
            fleet.set_rate(value)
        case "flush":
            fleet.redis.flushall()
        case "go":
            fleet.random.choice(fleet.pods).gone = True
        case "pause" | "resume":
            fleet.admin.set_campaign(ACCOUNT, "a", paused=what == "pause")
    return fleet.rate
