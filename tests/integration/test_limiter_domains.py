"""Domains with a rate of their own beside others, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailfleet_sender.contract.rate import Rate
from mailfleet_sender.limiter import ANY, DomainPermits, Permits, Why
from virtual_fleet import ACCOUNT, VirtualFleet, fullest_second, longest_silence

if TYPE_CHECKING:
    from services import RedisServer

GMAIL, YAHOO = "gmail.com", "yahoo.com"


def used_for(fleet: VirtualFleet, domain: str, since: float = 0.0) -> list[float]:
    return sorted(t for pod in fleet.pods for t in pod.used_for.get(domain, []) if t >= since)


@pytest.mark.parametrize("pods", [1, 4, 20])
@pytest.mark.parametrize(("rate", "slow"), [("14/s", "5/s"), ("100/s", "5/s"), ("1000/s", "50/s"), ("1000/s", "1/m")])
def test_a_slow_domain_has_its_own_rate_and_slows_the_rest_by_less_than_a_twentieth(
    redis_url: str, rate: str, slow: str, pods: int
) -> None:
    with VirtualFleet(redis_url, rate) as fleet:
        fleet.set(domains={GMAIL: Rate.parse(slow)})
        for _ in range(pods):
            fleet.pod(mix={GMAIL: 0.6, ANY: 0.4})
        fleet.run(33)
        limit, gmail = fleet.rate.per_second, Rate.parse(slow).per_second
        mails = used_for(fleet, GMAIL, 3)
        assert len(mails) == pytest.approx(30 * gmail, rel=0.05, abs=1)
        assert fullest_second(mails) <= gmail * 1.1 + 1
        assert len(used_for(fleet, ANY, 3)) / 30 >= 0.95 * (limit - gmail)
        assert fleet.mean(3, 33) == pytest.approx(limit, rel=0.01)
        assert fullest_second(fleet.used()) <= limit + fleet.rate.burst + pods


def test_two_domains_each_have_their_rate(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        fleet.set(domains={GMAIL: Rate.parse("20/s"), YAHOO: Rate.parse("150/m")})
        for _ in range(4):
            fleet.pod(mix={GMAIL: 0.4, YAHOO: 0.4, ANY: 0.2})
        fleet.run(33)
        assert len(used_for(fleet, GMAIL, 3)) / 30 == pytest.approx(20, rel=0.03)
        assert len(used_for(fleet, YAHOO, 3)) / 30 == pytest.approx(2.5, rel=0.05)
        assert fleet.mean(3, 33) == pytest.approx(100, rel=0.01)


def test_a_pod_that_has_only_rows_of_a_slow_domain_is_told_so(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        fleet.set(domains={GMAIL: Rate.parse("5/s")})
        slow = fleet.pod(rows_of=GMAIL)
        fleet.run(23)
        assert slow.refusals[-1].why is Why.DOMAIN
        assert fleet.mean(3, 23) == pytest.approx(5, rel=0.03)


def test_a_campaign_that_has_only_rows_of_a_slow_domain_holds_back_nobody(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        fleet.set(domains={GMAIL: Rate.parse("5/s")})
        fleet.admin.set_campaign(ACCOUNT, "a", weight=300)
        fleet.pod("a", rows_of=GMAIL)
        fleet.pod("b")
        fleet.run(23)
        assert 4 <= fleet.mean(3, 23, "a") <= 5.1
        assert fleet.mean(3, 23, "b") >= 0.95 * 95


@pytest.mark.parametrize(("old", "new"), [("1/m", "20/s"), ("20/s", "2/s"), (None, "5/s"), ("5/s", None)])
def test_a_changed_rate_of_a_domain_is_in_force_within_two_seconds(
    redis_url: str, old: str | None, new: str | None
) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        fleet.set(domains={GMAIL: Rate.parse(old)} if old else {})
        fleet.pod(mix={GMAIL: 0.5, ANY: 0.5})
        fleet.run(20)
        fleet.set(domains={GMAIL: Rate.parse(new)} if new else {})
        fleet.run(42)
        expected = Rate.parse(new).per_second if new else 50
        assert len(used_for(fleet, GMAIL, 22)) / 20 == pytest.approx(expected, rel=0.1)
        assert fleet.mean(22, 42) == pytest.approx(100, rel=0.01)


def test_a_clock_that_is_stepped_does_not_silence_a_domain(redis_url: str) -> None:
    for step in (30, -30):
        with VirtualFleet(redis_url, "100/s") as fleet:
            fleet.set(domains={GMAIL: Rate.parse("5/s")})
            fleet.pod(mix={GMAIL: 0.5, ANY: 0.5})
            fleet.run(10)
            fleet.clock_offset = step
            fleet.run(30)
            assert longest_silence(used_for(fleet, GMAIL)) < 2
            assert fullest_second(used_for(fleet, GMAIL)) <= 7


@given(
    count=st.integers(1, 500),
    first=st.floats(0, 0.5),
    spacing=st.floats(0.0001, 0.5),
    domains=st.lists(st.tuples(st.integers(0, 80), st.floats(0, 1), st.floats(0.001, 0.5)), max_size=4),
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_every_permit_has_one_domain_and_none_is_before_its_own_slot_or_that_of_its_domain(
    count: int, first: float, spacing: float, domains: list[tuple[int, float, float]]
) -> None:
    left, mine = count, []
    for k, (n, at, every) in enumerate(domains):
        mine.append(DomainPermits(f"d{k}", min(n, left), at, every))
        left -= mine[-1].count
    permits = Permits(
        count, first, spacing, 0.1, called_at=5.0, received_at=5.0, domains=(*mine, DomainPermits(ANY, left))
    )
    slots = permits.slots()
    assert len(slots) == count
    for domain in mine:
        starts = sorted(s.start - 5 for s in slots if s.domain == domain.name)
        assert len(starts) == domain.count
        for j, start in enumerate(starts):
            assert start >= domain.first_seconds + j * domain.spacing_seconds - 1e-6
    for k, start in enumerate(sorted(s.start - 5 for s in slots)):
        assert start >= first + k * spacing - 1e-6


@given(
    rate=st.sampled_from(["14/s", "100/s", "300/s"]),
    limits=st.lists(st.sampled_from(["1/m", "1/s", "5/s", "40/s"]), min_size=1, max_size=3),
    pods=st.integers(1, 6),
    shares=st.lists(st.sampled_from([0.05, 0.3, 1.0]), min_size=3, max_size=3),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_mix_each_domain_keeps_its_rate_and_the_relay_is_used_in_full(
    redis_server: RedisServer, rate: str, limits: list[str], pods: int, shares: list[float], seed: int
) -> None:
    with VirtualFleet(redis_server.url, rate, seed=seed) as fleet:
        rates = {f"d{k}.example": Rate.parse(text) for k, text in enumerate(limits)}
        fleet.set(domains=rates)
        mix = {ANY: 0.3} | dict(zip(rates, shares, strict=False))
        for _ in range(pods):
            fleet.pod(mix=mix)
        fleet.run(15)
        for domain, limit in rates.items():
            assert fullest_second(used_for(fleet, domain)) <= limit.per_second * 1.1 + 2
            assert len(used_for(fleet, domain)) <= 15 * limit.per_second + 2
        assert fleet.mean(3, 15) == pytest.approx(fleet.rate.per_second, rel=0.02)
