"""The operator ends before and after each of its actions, once each, and is started again: everything ends right.

One namespace, one hand that plays kubelet and senders, and a campaign that needs every action there is.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio

import custom_resources
from mailfleet_operator.boundaries import NAMES
from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.ledger import OwnedRange, Positions
from mailfleet_sender.limiter import Limiter, LimiterAdmin
from mailfleet_sender.limiter.keys import Keys
from operator_hand import MANY_LIVES, Hand, OperatorProcess, environment
from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kube import ControlPlane
    from mailfleet_sender.limiter import CampaignUse
    from services import RedisServer

Manifest = dict[str, Any]
CODE = "250"
"""What `Hand.send` writes for everybody."""


class ManyLives(OperatorProcess):
    """An operator that is started again at once."""

    program = ("-c", MANY_LIVES)


@pytest.fixture(scope="module")
def died(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file for each boundary at which the operator ended."""
    return tmp_path_factory.mktemp("died")


@pytest.fixture(scope="module")
def operator(
    api: ControlPlane, ledger_url: str, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory, died: Path
) -> Iterator[OperatorProcess]:
    folder = tmp_path_factory.mktemp("operator")
    at = {"MAILFLEET_TEST_DIE_AT": "all", "MAILFLEET_TEST_DIED": str(died)}
    with ManyLives(api, folder, ledger_url=ledger_url, redis_url=redis_server.url, **at) as process:
        yield process
        text = process.log.read_text()
        assert process.lives, text[-6000:]
        assert "Traceback" not in text, text[-6000:]


@pytest.fixture
def hand(operator: OperatorProcess, api: ControlPlane, namespace: str, ledger_url: str, database_url: str) -> Hand:
    return Hand(api, namespace, ledger_url, database_url)


def campaign(**spec: Any) -> Manifest:
    body = custom_resources.campaign("autumn")
    body["spec"].update({"rangeSize": 500, "senders": {"minReplicas": 2, "maxReplicas": 2}, **spec})
    return body


def send_jobs(hand: Hand, wave: int, run_id: str = "1") -> list[Manifest]:
    return hand.list("jobs", f"mailfleet.dev/wave={wave},mailfleet.dev/run-id={run_id}")


def a_job(hand: Hand, wave: int, run_id: str = "1") -> Manifest:
    return wait_for(
        f"the Job of wave {wave}", lambda: (send_jobs(hand, wave, run_id) or [None])[0], seconds=60, interval=0.2
    )


def recipients(hand: Hand) -> dict[str, int]:
    found: dict[str, int] = hand.status("autumn").get("recipients", {})
    return found


def dies_holding(hand: Hand, job: Manifest, index: int) -> None:
    """A sender that claimed seven and was never heard of again."""
    variables = environment(job["spec"]["template"])
    held = OwnedRange.acquire(
        hand.engine,
        run=int(variables["MAILFLEET_RUN"]),
        wave=int(variables["MAILFLEET_WAVE"]),
        index=index,
        owner=uuid.uuid4(),
        timing=hand.timing,
    )
    assert isinstance(held, OwnedRange)
    held.claim(7, Positions.span(0, 7))


def to_a_lost_node(hand: Hand, job: Manifest) -> str:
    """A pod of the Job is bound to a node without a kubelet, and evicted; its name."""
    node = f"lost-{hand.namespace}"
    hand.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
    pods = wait_for("pods", lambda: hand.pods(job["metadata"]["name"]), interval=0.2)
    pod: str = pods[0]["metadata"]["name"]
    hand.evict_from(node, pod)
    return pod


def late_outcomes(hand: Hand) -> None:
    """The dead sender's mails had been accepted after all."""
    with hand.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO late_outcome (range, pos, key, outcome, attempt) SELECT d.range, d.pos, d.key, 'sent', 1"
            " FROM doubt d JOIN range r ON r.id = d.range JOIN run u ON u.id = r.run WHERE u.namespace = %s",
            (hand.namespace,),
        )


def until(hand: Hand, **counts: int) -> None:
    wait_for(
        f"{counts}",
        lambda: counts.items() <= recipients(hand).items(),
        seconds=60,
        interval=0.2,
    )


def to_the_plan(hand: Hand) -> None:
    """Planned, edited while it is planned, planned again."""
    hand.people(2000)
    hand.apply(custom_resources.relay("ses"), campaign(suspend=True))
    (first,) = wait_for("a planner", lambda: hand.jobs("planner"), seconds=60, interval=0.2)
    hand.patch("autumn", {"message": {"subject": "Edited"}})
    wait_for(
        "another planner alone",
        lambda: (
            [j["metadata"]["uid"] for j in hand.jobs("planner")] not in ([], [first["metadata"]["uid"]])
            and len(hand.jobs("planner")) == 1
        ),
        seconds=60,
        interval=0.2,
    )
    assert hand.plan() == 0
    hand.wait_for_reason("autumn", "Suspended", "BySpec", seconds=60)


def to_the_end_of_the_main_wave(hand: Hand) -> None:
    """Four ranges: sent, failed, deferred, and one whose sender dies; a pause, fewer senders, a lost node, a Job that
    somebody deletes."""
    hand.patch("autumn", {"suspend": False})
    job = a_job(hand, 1)
    lost = to_a_lost_node(hand, job)
    hand.send(job, 0)
    hand.send(job, 1, kind=OutcomeKind.FAILED)
    hand.send(job, 2, kind=OutcomeKind.DEFERRED)
    retry = a_job(hand, 2)
    hand.send(retry, 0)
    hand.patch("autumn", {"senders": {"minReplicas": 1, "maxReplicas": 1}})
    wait_for(
        "fewer senders",
        lambda: hand.get("job", job["metadata"]["name"])["spec"]["parallelism"] == 1,
        seconds=60,
        interval=0.2,
    )
    wait_for(
        "the lost node's pod is declared failed",
        lambda: hand.get("pod", lost)["status"]["phase"] == "Failed",
        seconds=90,
        interval=0.5,
    )
    dies_holding(hand, job, 3)
    hand.patch("autumn", {"suspend": True})
    for pod in hand.pods(job["metadata"]["name"]):
        hand.end_pod(pod["metadata"]["name"], 75)
    until(hand, uncertain=7)
    hand.patch("autumn", {"suspend": False})
    hand.kubectl("delete", "job", job["metadata"]["name"])
    hand.send(a_job(hand, 3), 0)
    hand.wait_for_reason("autumn", "Complete", "Complete", seconds=60)


def in_limiter(hand: Hand, url: str) -> CampaignUse | None:
    """What the limiter knows of the campaign."""
    with redis.Redis.from_url(url) as client:
        return LimiterAdmin(client).state(f"{hand.namespace}/ses").campaigns.get(f"{hand.namespace}/autumn")


def all_fail(hand: Hand, url: str) -> None:
    """The senders tell the limiter so."""

    async def nothing() -> None:
        """The operator has written the limits."""

    async def leave() -> None:
        async with redis.asyncio.Redis.from_url(url) as client:
            where = {"account": f"{hand.namespace}/ses", "campaign": f"{hand.namespace}/autumn"}
            limiter = Limiter(client, **where, pod="a-sender", seed=nothing)
            limiter.report.failed = 60
            await limiter.leave()

    asyncio.run(leave())


def through_a_canary_and_a_pause(hand: Hand, url: str) -> None:
    """A step ends and passes; the brake closes and a person says that it is mended. Then Redis comes back with a brake
    that closed before: it is of a pause that is over."""
    a_job(hand, 1, "4")
    hand.send(send_jobs(hand, 1, "4")[0], 0)
    main = a_job(hand, 2, "4")
    wait_for("the limiter knows the brake", lambda: (use := in_limiter(hand, url)) and use.brake, interval=0.2)
    all_fail(hand, url)
    message = hand.wait_for_reason("autumn", "Suspended", "BrakeApplied", seconds=60)["message"]
    closed = in_limiter(hand, url)
    assert closed
    assert closed.braked_since
    hand.patch("autumn", {"resumeTime": message.split("spec.resumeTime to ")[1].split(" ", maxsplit=1)[0]})
    hand.wait_for_reason("autumn", "Suspended", "NotSuspended", seconds=60)
    with redis.Redis.from_url(url) as client:
        since = int(closed.braked_since.timestamp() * 1e6)
        client.hset(Keys(f"{hand.namespace}/ses").limits, f"braked:{hand.namespace}/autumn", since)
    wait_for("it is opened", lambda: (use := in_limiter(hand, url)) and not use.braked_since, seconds=60, interval=0.2)
    for index in range(main["spec"]["completions"]):
        hand.send(main, index)
    hand.wait_for_reason("autumn", "Complete", "Complete", seconds=60)


def test_it_ends_right_wherever_the_operator_ends(hand: Hand, died: Path, redis_server: RedisServer) -> None:
    to_the_plan(hand)
    to_the_end_of_the_main_wave(hand)
    late_outcomes(hand)
    hand.patch("autumn", {"retryFailed": {"generation": 1, "codes": [CODE]}})
    hand.send(a_job(hand, 4), 0)
    until(hand, planned=2000, sent=2000, uncertain=0, failed=0)
    hand.wait_for_reason("autumn", "Complete", "Complete", seconds=60)

    hand.patch("autumn", {"runId": "2"})
    assert hand.plan() == 0
    a_job(hand, 1, "2")
    hand.kubectl("delete", "emailcampaign", "autumn", "--timeout=60s")
    hand.apply(campaign(runId="3"))
    hand.wait_for_reason("autumn", "Planned", "Planning", seconds=60)
    assert hand.plan() == 0
    a_job(hand, 1, "3")
    hand.patch("autumn", {"cancel": True})
    hand.wait_for_reason("autumn", "Failed", "Cancelled", seconds=60)

    brake = {"maxFailedPercent": 10, "minimumSample": 50}
    canary = {"steps": [{"recipients": 100}], "pauseSeconds": 0}
    hand.patch("autumn", {"cancel": None, "runId": "4", "canary": canary, "brake": brake})
    assert hand.plan() == 0
    through_a_canary_and_a_pause(hand, redis_server.url)

    with hand.engine.connect() as connection:
        query = "SELECT run_id, state, sent, cancelled FROM run WHERE namespace = %s ORDER BY id"
        rows = [tuple(r) for r in connection.exec_driver_sql(query, (hand.namespace,)).all()]
    assert rows == [("1", "Complete", 2000, 0), ("2", "Superseded", 0, 2000), ("3", "Cancelled", 0, 2000),
                    ("4", "Complete", 2000, 0)]  # fmt: skip

    # A relay's Jobs are made beside the campaign's: the operator may have ended for a campaign just after it made one.
    hello = json.dumps({"spec": {"helloName": "mail.example.com"}})
    hand.kubectl("patch", "emailrelay", "ses", "--type=merge", "-p", hello)
    made = died / "after:CreatePreflightJob"
    wait_for("it tries the changed relay", made.exists, seconds=60, interval=0.2)
    wait_for("it forgets the campaign", (died / "after:ForgetInLimiter").exists, seconds=60, interval=0.2)
    hit = {file.name for file in died.iterdir()}
    print(f"the operator ended at {len(hit)} of {len(NAMES)} boundaries; not at {sorted(set(NAMES) - hit)}")
    assert hit == set(NAMES)
