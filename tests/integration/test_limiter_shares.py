"""Campaigns share one relay by weight, and nothing is left unused, in virtual time."""

from __future__ import annotations

import pytest

from virtual_fleet import ACCOUNT, VirtualFleet, in_force_after


def weighted(fleet: VirtualFleet, **weights: int) -> None:
    for campaign, weight in weights.items():
        fleet.admin.set_campaign(ACCOUNT, campaign, weight=weight)


@pytest.mark.parametrize(
    ("rate", "seconds"), [("10/m", 1200), ("1/s", 300), ("14/s", 60), ("100/s", 30), ("1000/s", 15)]
)
def test_weights_three_to_one_share_three_to_one_though_one_has_four_times_the_pods(
    redis_url: str, rate: str, seconds: int
) -> None:
    with VirtualFleet(redis_url, rate) as fleet:
        weighted(fleet, a=300, b=100)
        fleet.pod("a")
        for _ in range(4):
            fleet.pod("b")
        fleet.run(seconds)
        a, b = fleet.used(3, seconds, "a"), fleet.used(3, seconds, "b")
        assert len(a) / len(b) == pytest.approx(3, rel=0.05)
        assert len(a) + len(b) == pytest.approx(fleet.rate.per_second * (seconds - 3), rel=0.01)


@pytest.mark.parametrize("rate", ["10/m", "1/s", "14/s", "100/s", "1000/s"])
def test_when_one_campaign_stops_the_other_has_the_whole_rate_within_a_second(redis_url: str, rate: str) -> None:
    with VirtualFleet(redis_url, rate) as fleet:
        weighted(fleet, a=300, b=100)
        stops = fleet.pod("a")
        for _ in range(4):
            fleet.pod("b")
        fleet.run(20)
        stops.gone = True
        fleet.run(40)
        limit = fleet.rate.per_second
        enough = max(1, int(0.95 * 2 * limit))
        assert in_force_after(fleet.used(20, 40, "b"), 20, enough, seconds=2) <= max(1.0, 1 / limit)


@pytest.mark.parametrize("rate", ["14/s", "100/s", "1000/s"])
def test_a_campaign_with_few_rows_holds_back_nobody(redis_url: str, rate: str) -> None:
    with VirtualFleet(redis_url, rate) as fleet:
        weighted(fleet, a=300, b=100)
        limit = fleet.rate.per_second
        fleet.pod("a", rows_per_second=0.1 * limit)
        fleet.pod("b")
        fleet.run(30)
        assert fleet.mean(3, 30, "a") == pytest.approx(0.1 * limit, rel=0.05)
        assert fleet.mean(3, 30, "b") == pytest.approx(0.9 * limit, rel=0.02)


def test_twenty_campaigns_each_get_their_share(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        weights = {f"c{i}": 1 + i % 3 for i in range(20)}
        weighted(fleet, **weights)
        for campaign in weights:
            fleet.pod(campaign)
        fleet.run(63)
        for campaign, weight in weights.items():
            fair = 100 * weight / sum(weights.values())
            assert fleet.mean(3, 63, campaign) == pytest.approx(fair, rel=0.08)
        assert fleet.mean(3, 63) == pytest.approx(100, rel=0.005)


def test_a_campaign_of_which_nobody_told_weighs_as_much_as_one_of_the_default_weight(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        weighted(fleet, told=100)
        fleet.pod("told")
        fleet.pod("untold")
        fleet.run(23)
        assert fleet.mean(3, 23, "told") == pytest.approx(50, rel=0.05)
        assert fleet.mean(3, 23, "untold") == pytest.approx(50, rel=0.05)


def test_a_changed_weight_holds_at_once(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        weighted(fleet, a=100, b=100)
        fleet.pod("a")
        fleet.pod("b")
        fleet.run(10)
        weighted(fleet, a=300)
        fleet.run(32)
        assert fleet.mean(12, 32, "a") == pytest.approx(75, rel=0.05)
