"""What senders report with their calls: throttling slows the account, failures brake a campaign. And connections."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from mailfleet_sender.limiter import Brake, Why
from virtual_fleet import ACCOUNT, Pod, VirtualFleet, fullest_second

if TYPE_CHECKING:
    from collections.abc import Callable

BRAKE = Brake(max_failed_percent=10, minimum_sample=200)


def fails(share: float) -> Callable[[Pod, float], None]:
    def relay(pod: Pod, _at: float) -> None:
        if pod.fleet.random.random() < share:
            pod.report.failed += 1
        else:
            pod.report.sent += 1

    return relay


def test_a_campaign_of_which_too_many_mails_fail_is_braked_alone_until_it_is_released(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        for campaign in "ab":
            fleet.admin.set_campaign(ACCOUNT, campaign, brake=BRAKE)
        bad, _ = fleet.pod("a", relay=fails(0.3)), fleet.pod("b", relay=fails(0.02))
        fleet.run(30)
        assert bad.refusals[-1].why is Why.BRAKE
        assert 200 <= len(fleet.used(campaign="a")) <= 200 + 2 * 100
        assert fleet.mean(15, 30, "b") == pytest.approx(100, rel=0.02)
        use = fleet.state().campaigns
        assert use["a"].braked_since is not None
        assert use["a"].brake == BRAKE
        assert use["a"].failed / (use["a"].sent + use["a"].failed) == pytest.approx(0.3, abs=0.1)
        assert use["b"].braked_since is None
        bad.relay = fails(0)
        fleet.admin.release_brake(ACCOUNT, "a")
        fleet.run(50)
        assert fleet.mean(32, 50, "a") == pytest.approx(50, rel=0.05)


def test_a_relay_that_turns_bad_late_is_noticed_soon(redis_url: str) -> None:
    with VirtualFleet(redis_url, "1000/s") as fleet:
        fleet.admin.set_campaign(ACCOUNT, "a", brake=BRAKE)
        pod = fleet.pod("a", relay=fails(0.01))
        fleet.run(60)
        assert len(fleet.used()) > 50_000
        pod.relay = fails(1.0)
        fleet.run(70)
        assert len(fleet.used(60)) < 10 * 200 * 0.2 + 2 * 1000


def refuses(share: float) -> Callable[[Pod, float], None]:
    """A relay that refuses a share of the mails for the sender's sake (5.7.x); by turns, so that no luck is in it."""
    done = Counter[str]()

    def relay(pod: Pod, _at: float) -> None:
        done["all"] += 1
        if done["bad"] < share * done["all"]:
            done["bad"] += 1
            pod.report.faults += 1
        else:
            pod.report.sent += 1

    return relay


def test_faults_of_the_sender_count_as_failures_and_less_than_a_sample_brakes_nobody(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        fleet.admin.set_campaign(ACCOUNT, "a", brake=Brake(10, 500))
        fleet.pod("a", relay=refuses(0.15))
        fleet.run(4)
        assert fleet.state().campaigns["a"].braked_since is None
        fleet.run(30)
        use = fleet.state().campaigns["a"]
        assert use.braked_since is not None
        assert use.faults + use.failed + use.sent >= 500
        assert fleet.used(10, 30) == []


def test_a_campaign_without_a_brake_stops_when_many_mails_are_refused_for_the_sender_s_sake(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        fleet.pod("a", relay=refuses(1.0))
        fleet.pod("b", relay=refuses(0.1))
        fleet.pod("c", relay=fails(1.0))
        fleet.run(60)
        use = fleet.state().campaigns
        assert use["a"].braked_since is not None
        assert 20 <= use["a"].faults <= 20 + 2 * 100
        assert use["b"].braked_since is None
        assert use["b"].sent + use["b"].faults < 10 * 200 + 500  # what is long past is forgotten
        assert use["c"].braked_since is None  # recipients that fail are no fault of the sender's
        fleet.admin.release_brake(ACCOUNT, "a")
        fleet.run(64)
        assert fleet.used(60, campaign="a")


def throttles(limit: float) -> Callable[[Pod, float], None]:
    """A relay that takes `limit` a second and asks to slow down beyond."""

    def relay(pod: Pod, at: float) -> None:
        if len(pod.fleet.used(at - 1, at)) > limit:
            pod.report.throttled += 1

    return relay


def test_throttling_slows_the_whole_fleet_once_in_ten_seconds_and_never_below_the_floor(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        for _ in range(4):
            fleet.pod(relay=throttles(0))
        fleet.run(9)
        assert fleet.state().effective_per_second == pytest.approx(70, rel=0.02)
        assert fleet.state().slowed
        fleet.run(18)
        assert fleet.state().effective_per_second == pytest.approx(49, rel=0.05)
        assert fleet.mean(13, 18) == pytest.approx(49, rel=0.1)
        fleet.run(180)
        assert fleet.state().effective_per_second == pytest.approx(5, rel=0.25)
        assert fleet.mean(170, 180) == pytest.approx(5, rel=0.3)


def test_the_rate_settles_where_the_relay_takes_it_and_comes_back_in_minutes(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        pods = [fleet.pod(relay=throttles(60)) for _ in range(2)]
        fleet.run(120)
        assert 35 <= fleet.mean(40, 120) <= 65
        for pod in pods:
            pod.relay = None
        fleet.run(180)
        assert fleet.state().slowed
        fleet.run(1_100)
        assert not fleet.state().slowed
        assert fleet.mean(1_050, 1_100) == pytest.approx(100, rel=0.01)
        assert fullest_second(fleet.used(200)) <= 110


def test_a_relay_whose_own_quota_is_used_up_gets_one_mail_in_ten_minutes_until_it_takes_it(redis_url: str) -> None:
    with VirtualFleet(redis_url, "20/s") as fleet:
        taken: list[float] = []

        def relay(pod: Pod, at: float) -> None:
            if len(taken) < 300 or at > 1_500:
                taken.append(at)
                pod.report.sent += 1
            else:
                pod.report.exhausted += 1

        for _ in range(3):
            fleet.pod(relay=relay)
        fleet.run(2_000)
        refused = [t for t in fleet.used() if t not in set(taken)]
        shut = next(t for t in taken if t > 1_500)
        assert len([t for t in refused if t < 60]) <= 3 * 20  # what was out when the relay said so
        probes = [t for t in refused if t > 60]
        assert len(probes) == 2
        assert all(
            600 <= b - a <= 605 for a, b in itertools.pairwise([max(t for t in refused if t < 60), *probes, shut])
        )
        assert fleet.mean(shut + 3, 2_000) == pytest.approx(20, rel=0.01)
        assert {r.why for pod in fleet.pods for r in pod.refusals} >= {Why.QUOTA}


def test_a_probe_of_which_nobody_hears_again_is_followed_by_another(redis_url: str) -> None:
    with VirtualFleet(redis_url, "20/s") as fleet:
        pod = fleet.pod(relay=lambda pod, _at: setattr(pod.report, "exhausted", 1))
        fleet.run(2)
        pod.relay = None
        used = len(fleet.used())
        fleet.run(650)
        assert 4 <= len(fleet.used()) - used <= 7


def test_a_silence_does_not_end_the_slow_down_and_an_emptied_redis_does(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        pod = fleet.pod(relay=throttles(0))
        fleet.run(9)
        pod.relay = None
        pod.stall(5)
        fleet.run(20)
        assert fleet.state().slowed
        fleet.redis.flushall()
        fleet.run(22)
        assert not fleet.state().slowed


@pytest.mark.parametrize(("pods", "each"), [(1, 20), (3, 6), (8, 2), (30, 1)])
def test_connections_are_shared_by_the_pods_that_are_there(redis_url: str, pods: int, each: int) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        fleet.set(connections=20)
        for _ in range(pods):
            fleet.pod()
        fleet.run(6)
        assert {pod.connections for pod in fleet.pods} == {each}
        for pod in fleet.pods[1:]:
            pod.gone = True
        fleet.run(12)
        assert fleet.pods[0].connections == 20
        assert fleet.state().connections == 20
        assert fleet.state().pods == 1
        fleet.set(connections=None)
        fleet.run(14)
        assert fleet.pods[0].connections is None


def test_in_the_first_second_a_pod_may_hold_one_connection(redis_url: str) -> None:
    with VirtualFleet(redis_url, "100/s") as fleet:
        fleet.set(connections=20)
        pod = fleet.pod(start=0)
        fleet.run(0.5)
        assert pod.connections == 1
