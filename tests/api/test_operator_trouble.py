"""What goes wrong around a campaign ends in a condition that tells the remedy; mended, the campaign goes on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

import custom_resources
from mailfleet_sender.contract.accounts import OutcomeKind
from operator_hand import Hand, OperatorProcess, fresh_ledger
from services import PostgresServer, RedisServer, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kube import ControlPlane

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A Postgres that a test may kill."""
    with PostgresServer(tmp_path_factory.mktemp("own-postgres")) as server:
        yield server


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that a test may kill."""
    with RedisServer(tmp_path_factory.mktemp("own-redis")) as server:
        yield server


@pytest.fixture(scope="module")
def ledger_url(own_postgres: PostgresServer) -> str:
    return fresh_ledger(own_postgres.database)


@pytest.fixture(scope="module")
def operator(
    api: ControlPlane, ledger_url: str, own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    folder = tmp_path_factory.mktemp("operator")
    with OperatorProcess(api, folder, ledger_url=ledger_url, redis_url=own_redis.url) as process:
        yield process
        text = process.log.read_text()
        assert process.lives, text[-6000:]
        assert "Traceback" not in text, text[-6000:]


@pytest.fixture
def hand(operator: OperatorProcess, api: ControlPlane, namespace: str, ledger_url: str, database_url: str) -> Hand:
    assert operator.lives
    return Hand(api, namespace, ledger_url, database_url)


def campaign(**spec: Any) -> Manifest:
    body = custom_resources.campaign("autumn")
    body["spec"].update({"rangeSize": 500, **spec})
    return body


def relay(rate: str = "1000/s") -> Manifest:
    body = custom_resources.relay("ses")
    body["spec"]["limits"]["rate"] = rate
    return body


def sending(hand: Hand, count: int = 2000, **spec: Any) -> Manifest:
    hand.people(count)
    hand.apply(relay(), campaign(**spec))
    assert hand.plan() == 0
    return wait_for("a send Job", lambda: (hand.jobs("sender") or [None])[-1], interval=0.2)


def recipients(hand: Hand) -> dict[str, int]:
    found: dict[str, int] = hand.status("autumn").get("recipients", {})
    return found


def waiting(hand: Hand, pod: str, reason: str, message: str) -> None:
    """What a kubelet says of a container that cannot start."""
    hand.pod_status(pod, "Pending", {"waiting": {"reason": reason, "message": message}})


def test_a_missing_relay(hand: Hand) -> None:
    hand.people(10)
    hand.apply(campaign())
    found = hand.wait_for_reason("autumn", "Planned", "RelayNotFound")
    assert "create it" in found["message"]
    assert not hand.list("jobs", "mailfleet.dev/campaign")
    hand.apply(relay())
    assert hand.plan() == 0
    hand.wait_for_reason("autumn", "Planned", "Planned")


def test_a_missing_table_and_the_way_back(hand: Hand) -> None:
    hand.apply(relay(), campaign())
    assert hand.plan() != 0
    found = hand.wait_for_reason("autumn", "Planned", "TableNotFound")
    assert "subscribers" in found["message"]
    assert hand.status("autumn")["phase"] == "Stalled"
    hand.people(10)
    wait_for(
        "another planner",
        lambda: [j for j in hand.jobs("planner") if j["metadata"]["annotations"]["mailfleet.dev/attempt"] == "2"],
        interval=0.3,
    )
    assert hand.condition("autumn", "Planned")["reason"] == "TableNotFound", "the reason must not flicker"
    assert hand.plan() == 0
    hand.wait_for_reason("autumn", "Planned", "Planned")
    wait_for("the failed Job is gone", lambda: len(hand.jobs("planner")) == 1, interval=0.2)


def test_a_failed_plan_is_tried_at_once_after_an_edit(hand: Hand) -> None:
    hand.people(10, table="people")
    hand.apply(relay(), campaign())
    assert hand.plan() != 0
    hand.wait_for_reason("autumn", "Planned", "TableNotFound")
    hand.patch("autumn", {"recipients": {"table": {"name": "people"}}})
    wait_for("a planner without a pause", lambda: hand.jobs("planner"), seconds=3, interval=0.2)
    assert hand.plan() == 0
    hand.wait_for_reason("autumn", "Planned", "Planned")


def test_a_missing_secret(hand: Hand) -> None:
    hand.people(10)
    hand.apply(relay(), campaign())
    pod = hand.wait_for_pod("planner")["metadata"]["name"]
    waiting(hand, pod, "CreateContainerConfigError", 'secret "mailfleet" not found')
    found = hand.wait_for_reason("autumn", "Planned", "CredentialsMissing")
    assert 'secret "mailfleet" not found' in found["message"]
    assert hand.condition("autumn", "Stalled")["status"] == "True"
    assert hand.plan() == 0
    hand.wait_for_reason("autumn", "Planned", "Planned")
    hand.wait_for_reason("autumn", "Stalled", "NotStalled")


def test_a_quota_that_refuses_the_pods(hand: Hand) -> None:
    hand.kubectl("create", "quota", "tight", "--hard=pods=0")
    wait_for("the quota counts", lambda: hand.get("quota", "tight").get("status", {}).get("hard"), interval=0.2)
    hand.people(10)
    hand.apply(relay(), campaign())
    found = hand.wait_for_reason("autumn", "Stalled", "PodsRejected")
    assert "exceeded quota" in found["message"]
    hand.kubectl("delete", "quota", "tight")
    wait_for("a pod", lambda: hand.list("pods"), seconds=90, interval=0.3)
    assert hand.plan() == 0
    hand.wait_for_reason("autumn", "Stalled", "NotStalled")


def test_the_pods_satisfy_the_restricted_pod_security_standard(hand: Hand) -> None:
    label = "pod-security.kubernetes.io/enforce=restricted"
    hand.kubectl("label", "namespace", hand.namespace, label)
    sending(hand, 10)
    hand.wait_for_pod("sender")


def test_redis_that_is_away(hand: Hand, own_redis: RedisServer) -> None:
    sending(hand)
    own_redis.kill()
    found = hand.wait_for_reason("autumn", "Throttled", "LimiterUnavailable")
    assert "Redis does not answer" in found["message"]
    own_redis.start()
    hand.wait_for_reason("autumn", "Throttled", "NotThrottled")


def test_a_ledger_that_is_away(hand: Hand, own_postgres: PostgresServer) -> None:
    job = sending(hand)
    own_postgres.kill()
    found = hand.wait_for_reason("autumn", "Stalled", "LedgerUnavailable", seconds=60)
    assert "Sending goes on" in found["message"]
    assert hand.condition("autumn", "Planned")["status"] == "True"
    own_postgres.start()
    hand.wait_for_reason("autumn", "Stalled", "NotStalled", seconds=60)
    assert [j["metadata"]["uid"] for j in hand.jobs("sender")] == [job["metadata"]["uid"]]


def test_a_ledger_that_lost_what_was_reported(hand: Hand) -> None:
    job = sending(hand)
    hand.send(job, 0)
    wait_for("500 are sent", lambda: recipients(hand).get("sent") == 500, interval=0.2)
    with hand.engine.begin() as connection:
        connection.exec_driver_sql(
            "WITH r AS (UPDATE run SET sent = 0, skipped = 500 WHERE namespace = %s RETURNING 1) SELECT 1",
            (hand.namespace,),
        )
    hand.wait_for_reason("autumn", "Stalled", "LedgerRewound")
    wait_for("the Job is suspended", lambda: hand.jobs("sender")[0]["spec"]["suspend"], interval=0.2)
    assert hand.status("autumn")["recipients"]["sent"] == 500, "the evidence stays"


def node(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


def test_a_pod_on_a_lost_node_is_replaced(hand: Hand) -> None:
    name = f"lost-{hand.namespace}"
    hand.apply(node(name))
    sending(hand, 10)
    pod = hand.wait_for_pod("sender")["metadata"]["name"]
    hand.evict_from(name, pod)
    evicted = time.monotonic()
    replaced = wait_for(
        "another pod for the index",
        lambda: [p for p in hand.list("pods") if p["metadata"]["name"] != pod and "send" in p["metadata"]["name"]],
        seconds=60,
        interval=0.5,
    )
    assert replaced
    print(f"replaced {time.monotonic() - evicted:.0f} s after the eviction")
    hand.kubectl("delete", "node", name)


def test_a_namespace_that_is_deleted_while_sending_goes(hand: Hand) -> None:
    sending(hand, 5000)
    hand.wait_for_pod("sender")
    hand.kubectl("delete", "namespace", hand.namespace, "--wait=false")

    def gone() -> bool:
        # No kubelet ends pods here: play it.
        for pod in hand.plane.kubectl("get", "pods", "-n", hand.namespace, "-o", "name").split():
            hand.kubectl("delete", pod, "--force", "--grace-period=0", "--wait=false", check=False)
        return "NotFound" in hand.plane.kubectl("get", "namespace", hand.namespace, check=False)

    wait_for("the namespace is gone", gone, seconds=90, interval=0.5)


def test_late_outcomes_of_an_ended_range_are_taken_in(hand: Hand) -> None:
    """A sender that was fenced saw its mails accepted: uncertain becomes sent, also after the end of the range."""
    hand.send(sending(hand, 1000), 0, kind=OutcomeKind.UNCERTAIN)
    wait_for("500 are uncertain", lambda: recipients(hand).get("uncertain") == 500, interval=0.2)
    with hand.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO late_outcome (range, pos, key, outcome, attempt) SELECT d.range, d.pos, d.key, 'sent', 1"
            " FROM doubt d JOIN range r ON r.id = d.range JOIN run u ON u.id = r.run WHERE u.namespace = %s",
            (hand.namespace,),
        )
    wait_for("they are sent", lambda: recipients(hand)["sent"] == 500, interval=0.2)
    assert recipients(hand)["uncertain"] == 0


def test_what_happened_is_told_in_events(hand: Hand) -> None:
    hand.people(10)
    hand.apply(campaign())
    hand.wait_for_reason("autumn", "Planned", "RelayNotFound")
    hand.apply(relay())
    assert hand.plan() == 0
    hand.wait_for_reason("autumn", "Sending", "Sending")

    def told() -> set[str]:
        events = hand.list("events")
        return {e["reason"] for e in events if e["involvedObject"]["kind"] == "EmailCampaign"}

    wait_for("its Events", lambda: told() >= {"RelayNotFound", "Recovered", "Planned", "Sending"}, interval=0.3)


def test_what_comes_and_goes_is_one_event_with_a_count(hand: Hand) -> None:
    hand.people(10)
    hand.apply(campaign(suspend=True), relay())
    assert hand.plan() == 0
    for _ in range(3):
        hand.wait_for_reason("autumn", "Suspended", "BySpec")
        hand.patch("autumn", {"suspend": False})
        hand.wait_for_reason("autumn", "Suspended", "NotSuspended")
        hand.patch("autumn", {"suspend": True})
    hand.wait_for_reason("autumn", "Suspended", "BySpec")
    reasons = [e["reason"] for e in hand.list("events") if e["involvedObject"]["kind"] == "EmailCampaign"]
    assert reasons.count("BySpec") == 1
    assert reasons.count("Resumed") == 1
