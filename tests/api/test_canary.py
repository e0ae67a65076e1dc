"""Canary steps, the brake and sender faults: what a person sees and writes, on a real API server."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio

import custom_resources
from mailfleet_sender.contract.accounts import OutcomeKind, ReportReason
from mailfleet_sender.ledger import report
from mailfleet_sender.limiter import Limiter, LimiterAdmin
from operator_hand import Hand, OperatorProcess, environment
from services import wait_for

if TYPE_CHECKING:
    from mailfleet_sender.limiter import CampaignUse
    from services import RedisServer

Manifest = dict[str, Any]
STEPS = {"steps": [{"recipients": 100}, {"percent": 20}], "pauseSeconds": 0}


def manifests(**spec: Any) -> tuple[Manifest, Manifest]:
    relay, campaign = custom_resources.relay("ses"), custom_resources.campaign("autumn")
    relay["spec"]["limits"]["rate"] = "1000/s"
    campaign["spec"].update({"rangeSize": 500, **spec})
    return relay, campaign


def planned(hand: Hand, count: int = 2000, **spec: Any) -> None:
    """A campaign that has its plan."""
    hand.people(count)
    hand.apply(*manifests(**spec))
    assert hand.plan() == 0


def wave(hand: Hand, number: int) -> Manifest:
    """The Job of a wave."""
    found = wait_for(f"wave {number}", lambda: hand.list("jobs", f"mailfleet.dev/wave={number}"), interval=0.2)
    return found[0]


def send(hand: Hand, number: int, failed: int = 0) -> None:
    """All of a wave is sent, but for its first recipients, which fail."""
    job = wave(hand, number)
    if failed:
        hand.send(job, 0, upto=failed, kind=OutcomeKind.FAILED)
    for index in range(job["spec"]["completions"]):
        hand.send(job, index)
    hand.finish(job["metadata"]["name"])


def waves(hand: Hand) -> list[str]:
    """The waves that have Jobs."""
    return sorted(j["metadata"]["labels"]["mailfleet.dev/wave"] for j in hand.jobs("sender", "autumn"))


def recipients(hand: Hand) -> dict[str, int]:
    found: dict[str, int] = hand.status("autumn").get("recipients", {})
    return {k: v for k, v in found.items() if v}


def in_limiter(hand: Hand, redis_url: str) -> CampaignUse | None:
    """What the limiter knows of the campaign."""
    with redis.Redis.from_url(redis_url) as client:
        return LimiterAdmin(client).state(f"{hand.namespace}/ses").campaigns.get(f"{hand.namespace}/autumn")


def tell(hand: Hand, redis_url: str, *, sent: int = 0, failed: int = 0, faults: int = 0) -> None:
    """What a sender tells the limiter of its mails."""

    async def nothing() -> None:
        """The operator has written the limits."""

    async def leave() -> None:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            account, campaign = f"{hand.namespace}/ses", f"{hand.namespace}/autumn"
            limiter = Limiter(client, account=account, campaign=campaign, pod="a-sender", seed=nothing)
            limiter.report.sent, limiter.report.failed, limiter.report.faults = sent, failed, faults
            await limiter.leave()

    asyncio.run(leave())


def run_of(job: Manifest) -> int:
    return int(environment(job["spec"]["template"])["MAILFLEET_RUN"])


def told_time(message: str) -> str:
    """The time that a condition tells to write."""
    return message.split("spec.resumeTime to ")[1].split(" ", maxsplit=1)[0]


def test_a_canary_halts_when_too_many_fail_and_goes_on_when_it_is_approved(
    hand: Hand, operator: OperatorProcess
) -> None:
    planned(hand, canary=STEPS)
    send(hand, 1, failed=20)
    halted = hand.wait_for_reason("autumn", "Sending", "WaitingForApproval")
    assert halted["message"] == (
        "canary step 1 of 2: 20 of 100 failed (20 %, most with 250; maxFailedPercent is 5). Nobody is mailed."
        " Mend it, then set spec.canary.approvedStep to 1 to go on, or spec.cancel to end it"
    )
    assert recipients(hand) == {"planned": 2000, "sent": 80, "failed": 20, "remaining": 1900}
    assert hand.status("autumn")["phase"] == "Waiting"
    assert "estimatedCompletionTime" not in hand.status("autumn")
    # Neither an operator that starts anew nor the same manifest once more lets it go on.
    operator.kill()
    operator.start()
    hand.apply(*manifests(canary=STEPS))
    hand.kubectl("annotate", "emailcampaign", "autumn", "example.com/note=looked")
    hand.patch("autumn", {"weight": 200})
    observed = hand.get("emailcampaign", "autumn")["metadata"]["generation"]
    wait_for("it looked", lambda: hand.status("autumn")["observedGeneration"] == observed, interval=0.2)
    assert hand.condition("autumn", "Sending")["reason"] == "WaitingForApproval"
    assert waves(hand) == ["1"]
    hand.patch("autumn", {"canary": {"approvedStep": 1}})
    send(hand, 2)  # 20 % of 2000; it is within its bounds and passes by itself
    assert recipients(hand)["planned"] == 2000
    send(hand, 3)
    hand.wait_for_reason("autumn", "Complete", "Complete")
    assert recipients(hand) == {"planned": 2000, "sent": 1980, "failed": 20}
    assert waves(hand) == ["1", "2", "3"]


def test_what_was_approved_does_not_pass_the_steps_of_a_campaign_made_anew(hand: Hand) -> None:
    """Deleted, and applied with another runId by somebody who left approvedStep in the manifest."""
    planned(hand, 300, canary={**STEPS, "approval": "Manual", "approvedStep": 1})
    send(hand, 1)
    send(hand, 2)  # the first run of this name: who approves in advance means it
    hand.kubectl("delete", "emailcampaign", "autumn")
    hand.apply(*manifests(runId="2", canary={**STEPS, "approval": "Manual", "approvedStep": 1}))
    hand.plan("autumn")
    send(hand, 1)
    waiting = hand.wait_for_reason("autumn", "Sending", "WaitingForApproval")
    assert "to 1 (take it out first: the 1 that is there is older than this run)" in waiting["message"]
    hand.patch("autumn", {"canary": {"approvedStep": None}})
    wait_for(
        "it is out",
        lambda: "take it out" not in hand.condition("autumn", "Sending")["message"],
        interval=0.2,
    )
    hand.patch("autumn", {"canary": {"approvedStep": 1}})
    send(hand, 2)


def test_by_hand_each_step_waits_for_its_approval_also_through_a_pause(hand: Hand) -> None:
    planned(hand, 300, canary={**STEPS, "approval": "Manual"})
    send(hand, 1)
    waiting = hand.wait_for_reason("autumn", "Sending", "WaitingForApproval")
    assert "100 sent, 0 failed, 0 deferred" in waiting["message"]
    hand.patch("autumn", {"suspend": True})
    hand.wait_for_reason("autumn", "Suspended", "BySpec")
    hand.patch("autumn", {"canary": {"approvedStep": 1}})
    hand.patch("autumn", {"suspend": False})
    send(hand, 2)
    hand.wait_for_reason("autumn", "Sending", "WaitingForApproval")
    assert waves(hand) == ["1", "2"]
    hand.patch("autumn", {"canary": {"approvedStep": 2}})
    send(hand, 3)
    hand.wait_for_reason("autumn", "Complete", "Complete")
    assert recipients(hand) == {"planned": 300, "sent": 300}


def test_cancelled_in_a_canary_the_others_are_never_mailed(hand: Hand) -> None:
    planned(hand, canary=STEPS)
    send(hand, 1, failed=50)
    hand.wait_for_reason("autumn", "Sending", "WaitingForApproval")
    hand.patch("autumn", {"cancel": True})
    hand.wait_for_reason("autumn", "Failed", "Cancelled")
    assert recipients(hand) == {"planned": 2000, "sent": 50, "failed": 50, "cancelled": 1900}
    assert waves(hand) == ["1"]


def test_a_canary_that_is_edited_before_the_start_is_cut_anew(hand: Hand) -> None:
    planned(hand, 300, canary=STEPS, suspend=True)
    hand.wait_for_reason("autumn", "Suspended", "BySpec")
    hand.patch("autumn", {"canary": {"steps": [{"recipients": 7}]}})
    hand.wait_for_reason("autumn", "Planned", "Planning")
    assert hand.plan() == 0
    hand.patch("autumn", {"suspend": False})
    send(hand, 1)
    wait_for("7 are sent", lambda: recipients(hand).get("sent") == 7, interval=0.2)
    send(hand, 2)
    hand.wait_for_reason("autumn", "Complete", "Complete")


def test_the_brake_pauses_it_until_a_person_writes_the_time(hand: Hand, redis_server: RedisServer) -> None:
    spec = {"brake": {"maxFailedPercent": 10, "minimumSample": 50}}
    planned(hand, **spec)
    job = wave(hand, 1)
    name = job["metadata"]["name"]
    hand.send(job, 0, upto=50, kind=OutcomeKind.FAILED)

    def told() -> bool:
        use = in_limiter(hand, redis_server.url)
        return bool(use and use.brake)

    wait_for("the limiter knows the brake", told, interval=0.2)
    tell(hand, redis_server.url, sent=150, failed=50)
    braked = hand.wait_for_reason("autumn", "Suspended", "BrakeApplied")
    assert braked["status"] == "True"
    cause, remedy = braked["message"].split(". Mend")
    assert cause == ("50 of the last 200 mails failed (25 %; brake.maxFailedPercent is 10), most of them with 250")
    assert "spec.resumeTime" in remedy
    wait_for("the Job is suspended", lambda: hand.get("job", name)["spec"]["suspend"], interval=0.2)
    assert recipients(hand) == {"planned": 2000, "failed": 50, "remaining": 1950}
    # An emptied Redis, the same manifest and any other edit let nothing go.
    redis_server.flush()

    def paused() -> bool:
        use = in_limiter(hand, redis_server.url)
        return bool(use and use.paused and use.brake)

    wait_for("the limiter knows it again", paused, interval=0.2)
    hand.apply(*manifests(**spec))
    hand.patch("autumn", {"brake": {"maxFailedPercent": 100}, "resumeTime": "2026-01-01T00:00:00Z"})
    observed = hand.get("emailcampaign", "autumn")["metadata"]["generation"]
    wait_for("it looked", lambda: hand.status("autumn")["observedGeneration"] == observed, interval=0.2)
    assert hand.condition("autumn", "Suspended")["reason"] == "BrakeApplied"
    assert hand.get("job", name)["spec"]["suspend"]
    # The time that the condition tells.
    hand.patch("autumn", {"resumeTime": told_time(braked["message"])})
    wait_for("the Job goes on", lambda: not hand.get("job", name)["spec"]["suspend"], interval=0.2)
    hand.wait_for_reason("autumn", "Suspended", "NotSuspended")
    for index in range(4):
        hand.send(job, index)
    hand.finish(name)
    hand.wait_for_reason("autumn", "Complete", "Complete")
    assert recipients(hand) == {"planned": 2000, "failed": 50, "sent": 1950}


def test_closed_again_it_is_not_released_by_the_time_of_before(hand: Hand, redis_server: RedisServer) -> None:
    planned(hand, brake={"maxFailedPercent": 10, "minimumSample": 50})
    name = wave(hand, 1)["metadata"]["name"]
    wait_for("the limiter knows it", lambda: in_limiter(hand, redis_server.url), interval=0.2)

    def close() -> str:
        wait_for("the brake is there", lambda: (use := in_limiter(hand, redis_server.url)) and use.brake, interval=0.2)
        tell(hand, redis_server.url, failed=60)
        return str(hand.wait_for_reason("autumn", "Suspended", "BrakeApplied")["message"])

    first = close()
    hand.patch("autumn", {"resumeTime": told_time(first)})
    hand.wait_for_reason("autumn", "Suspended", "NotSuspended")
    wait_for("the Job goes on", lambda: not hand.get("job", name)["spec"]["suspend"], interval=0.2)
    wait_for("a second has passed", lambda: told_time(first) < now(hand), interval=0.2)
    second = close()
    assert told_time(second) > told_time(first)
    hand.kubectl("annotate", "emailcampaign", "autumn", "example.com/note=again")
    wait_for("the Job is suspended again", lambda: hand.get("job", name)["spec"]["suspend"], interval=0.2)
    assert hand.get("emailcampaign", "autumn")["spec"]["resumeTime"] == told_time(first)


def now(hand: Hand) -> str:
    """The time of the ledger's server, as manifests write it."""
    with hand.engine.connect() as connection:
        query = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
        return str(connection.exec_driver_sql(query).scalar_one())


def test_a_relay_that_refuses_the_sender_pauses_it_and_burns_nobody(hand: Hand) -> None:
    planned(hand)
    job = wave(hand, 1)
    name = job["metadata"]["name"]
    hand.send(job, 0)
    pod = hand.wait_for_pod("sender")["metadata"]["name"]
    words = "530 5.7.0 authentication required"
    report(hand.engine, run_of(job), pod, ReportReason.SENDER_FAULT, words)
    fault = hand.wait_for_reason("autumn", "Suspended", "SenderFault")
    assert fault["status"] == "True"
    assert words in fault["message"]
    wait_for("the Job is suspended", lambda: hand.get("job", name)["spec"]["suspend"], interval=0.2)
    assert hand.status("autumn")["phase"] == "Suspended"
    assert recipients(hand) == {"planned": 2000, "sent": 500, "remaining": 1500}
    # Deleted and applied again it is still paused: the ledger keeps it.
    hand.kubectl("delete", "emailcampaign", "autumn", "--timeout=60s")
    wait_for("its Jobs are gone", lambda: not hand.list("jobs", "mailfleet.dev/campaign"), interval=0.2)
    hand.apply(*manifests())
    again = hand.wait_for_reason("autumn", "Suspended", "SenderFault")
    assert again["message"] == fault["message"]
    assert not hand.list("jobs", "mailfleet.dev/campaign")
    hand.apply(*manifests(resumeTime=told_time(fault["message"])))
    job = wave(hand, 1) if hand.list("jobs", "mailfleet.dev/wave=1") else wave(hand, 2)
    for index in range(job["spec"]["completions"]):
        hand.send(job, index)
    hand.finish(job["metadata"]["name"])
    hand.wait_for_reason("autumn", "Complete", "Complete")
    assert recipients(hand) == {"planned": 2000, "sent": 2000}
    assert json.loads(hand.kubectl("get", "emailcampaign", "autumn", "-o", "json"))["status"]["phase"] == "Complete"
