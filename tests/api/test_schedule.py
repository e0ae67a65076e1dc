"""What a campaign's schedule and a person's control do to it, on a real API server with a real Job controller."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import redis

import custom_resources
from kube import KubectlError
from mailfleet_operator.conditions import time_text
from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.ledger import OwnedRange, Positions
from mailfleet_sender.limiter import LimiterAdmin
from operator_hand import Hand, OperatorProcess, environment
from services import wait_for

if TYPE_CHECKING:
    from mailfleet_sender.limiter import CampaignUse
    from services import RedisServer

Manifest = dict[str, Any]


def planned(hand: Hand, count: int = 2000, **spec: Any) -> None:
    """A campaign that has its plan."""
    hand.people(count)
    relay, campaign = custom_resources.relay("ses"), custom_resources.campaign("autumn")
    relay["spec"]["limits"]["rate"] = "1000/s"
    campaign["spec"].update({"rangeSize": 500, **spec})
    hand.apply(relay, campaign)
    assert hand.plan() == 0


def sending(hand: Hand, count: int = 2000, **spec: Any) -> Manifest:
    """A campaign whose Main wave has its Job; the Job."""
    planned(hand, count, **spec)
    return wait_for("a send Job", lambda: (hand.jobs("sender") or [None])[-1], interval=0.2)


def at(seconds: float) -> str | None:
    """A time so many seconds ahead, as manifests write it."""
    return time_text(datetime.now(UTC) + timedelta(seconds=seconds))


def recipients(hand: Hand) -> dict[str, int]:
    found: dict[str, int] = hand.status("autumn").get("recipients", {})
    return {k: v for k, v in found.items() if v}


def in_limiter(hand: Hand, redis_url: str) -> CampaignUse | None:
    """What the limiter knows of the campaign."""
    with redis.Redis.from_url(redis_url) as client:
        state = LimiterAdmin(client).state(f"{hand.namespace}/ses")
    return state.campaigns.get(f"{hand.namespace}/autumn")


def held(hand: Hand, job: Manifest, index: int) -> OwnedRange:
    """A sender at work on a range."""
    found = OwnedRange.acquire(
        hand.engine,
        run=int(environment(job["spec"]["template"])["MAILFLEET_RUN"]),
        wave=1,
        index=index,
        owner=uuid.uuid4(),
        timing=hand.timing,
    )
    assert isinstance(found, OwnedRange)
    return found


def events(hand: Hand, reason: str) -> list[Manifest]:
    return [e for e in hand.list("events") if e["reason"] == reason]


def test_cancel_accounts_for_what_is_in_flight_and_counts_the_rest(hand: Hand) -> None:
    job = sending(hand)
    hand.send(job, 0)
    hand.send(job, 1, upto=100)
    alive = held(hand, job, 2)
    alive.claim(7, Positions.span(0, 7))
    hand.patch("autumn", {"cancel": True})
    failed = hand.wait_for_reason("autumn", "Failed", "Cancelled", seconds=40)
    assert failed["status"] == "True"
    # 600 were sent; 7 were claimed by a sender that was never heard of again; the others are cancelled.
    assert recipients(hand) == {"planned": 2000, "sent": 600, "uncertain": 7, "cancelled": 1393}
    assert hand.status("autumn")["phase"] == "Failed"
    assert hand.status("autumn")["completionTime"]
    assert "600 sent, 1393 not sent" in failed["message"]
    (event,) = wait_for("an Event", lambda: events(hand, "Cancelled"), interval=0.2)
    assert event["type"] == "Warning"
    wait_for("its Job is gone", lambda: not hand.jobs("sender"), interval=0.2)
    hand.kubectl("wait", "--for=condition=Failed", "emailcampaign/autumn", "--timeout=60s")


def test_cancelled_stays_cancelled_when_it_is_deleted_and_applied_again(hand: Hand) -> None:
    job = sending(hand)
    hand.send(job, 0)
    hand.patch("autumn", {"cancel": True})
    hand.wait_for_reason("autumn", "Failed", "Cancelled")
    with pytest.raises(KubectlError, match="cancel cannot be taken back"):
        hand.patch("autumn", {"cancel": False})
    hand.kubectl("delete", "emailcampaign", "autumn", "--timeout=60s")
    wait_for("its Jobs are gone", lambda: not hand.list("jobs", "mailfleet.dev/campaign"), interval=0.2)
    campaign = custom_resources.campaign("autumn")
    campaign["spec"]["rangeSize"] = 500
    hand.apply(campaign)
    hand.wait_for_reason("autumn", "Failed", "Cancelled")
    assert recipients(hand) == {"planned": 2000, "sent": 500, "cancelled": 1500}
    assert not hand.list("jobs", "mailfleet.dev/campaign")
    hand.patch("autumn", {"runId": "2"})
    assert hand.plan() == 0
    wait_for("run 2 sends", lambda: hand.jobs("sender"), interval=0.2)


def test_cancelled_while_it_is_planned_it_sends_nothing(hand: Hand) -> None:
    planned(hand, suspend=True)
    hand.wait_for_reason("autumn", "Suspended", "BySpec")
    hand.patch("autumn", {"cancel": True})
    hand.wait_for_reason("autumn", "Failed", "Cancelled")
    assert recipients(hand) == {"planned": 2000, "cancelled": 2000}
    assert not hand.jobs("sender")


def test_the_end_time_ends_it_and_the_limiter_knew_it_ahead(
    hand: Hand, operator: OperatorProcess, redis_server: RedisServer
) -> None:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=25)
    job = sending(hand, schedule={"endTime": time_text(end)})
    hand.send(job, 0)

    def told() -> bool:
        use = in_limiter(hand, redis_server.url)
        return bool(use and use.open_until == end - timedelta(seconds=2))

    wait_for("the limiter knows the end", told, interval=0.2)
    operator.kill()
    assert told()  # it holds while the operator is down
    operator.start()
    failed = hand.wait_for_reason("autumn", "Failed", "EndTimeReached", seconds=60)
    assert datetime.now(UTC) >= end
    assert failed["status"] == "True"
    assert recipients(hand) == {"planned": 2000, "sent": 500, "cancelled": 1500}
    assert wait_for("an Event", lambda: events(hand, "EndTimeReached"), interval=0.2)
    wait_for("its Job is gone", lambda: not hand.jobs("sender"), interval=0.2)
    wait_for("the limiter forgets it", lambda: in_limiter(hand, redis_server.url) is None, interval=0.2)


def test_an_end_time_that_has_passed_starts_nothing(hand: Hand) -> None:
    hand.people(10)
    campaign = custom_resources.campaign("autumn")
    campaign["spec"]["schedule"] = {"endTime": at(-60)}
    hand.apply(custom_resources.relay("ses"), campaign)
    hand.wait_for_reason("autumn", "Failed", "EndTimeReached")
    assert not hand.list("jobs", "mailfleet.dev/campaign")


def window(first: float, last: float) -> Manifest:
    """A window from so many hours ahead to so many hours ahead, every day."""
    now = datetime.now(UTC)
    return {"from": f"{now + timedelta(hours=first):%H:%M}", "to": f"{now + timedelta(hours=last):%H:%M}"}


def test_it_is_planned_at_once_and_starts_at_its_start_time(hand: Hand) -> None:
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=20)
    planned(hand, schedule={"startTime": time_text(start), "startingDeadlineSeconds": 3600})
    waiting = hand.wait_for_reason("autumn", "Sending", "WaitingForStart")
    assert str(time_text(start)) in waiting["message"]
    assert recipients(hand) == {"planned": 2000, "remaining": 2000}
    assert "startTime" not in hand.status("autumn")
    assert not hand.jobs("sender")
    wait_for("a send Job", lambda: hand.jobs("sender"), seconds=60, interval=0.2)
    assert datetime.fromisoformat(hand.status("autumn")["startTime"]) >= start
    hand.send_all("autumn")
    hand.wait_for_reason("autumn", "Complete", "Complete")


def test_applied_long_after_its_start_it_sends_nothing(hand: Hand) -> None:
    hand.people(10)
    campaign = custom_resources.campaign("autumn")
    campaign["spec"]["schedule"] = {"startTime": at(-7200), "startingDeadlineSeconds": 3600}
    hand.apply(custom_resources.relay("ses"), campaign)
    failed = hand.wait_for_reason("autumn", "Failed", "StartingDeadlineExceeded")
    assert "runId" in failed["message"]
    assert not hand.list("jobs", "mailfleet.dev/campaign")
    hand.patch("autumn", {"runId": "2", "schedule": {"startTime": at(-5)}})
    assert hand.plan() == 0
    wait_for("run 2 sends", lambda: hand.jobs("sender"), interval=0.2)


def test_windows_close_and_open(hand: Hand, operator: OperatorProcess, redis_server: RedisServer) -> None:
    job = sending(hand, schedule={"windows": [window(-2, 2)]})
    name = job["metadata"]["name"]
    hand.send(job, 0)

    def ahead() -> list[float]:
        """Hours until it closes, opens again and closes again, as the limiter knows them."""
        use = in_limiter(hand, redis_server.url)
        turns = [use.open_until, *(t for opening in use.reopens[:1] for t in opening)] if use else []
        return [round((t - datetime.now(UTC)).total_seconds() / 3600) for t in turns if t]

    wait_for("the limiter knows the windows of the days to come", lambda: ahead() == [2, 22, 26], interval=0.2)
    hand.patch("autumn", {"schedule": {"windows": [window(2, 4)]}})
    waiting = hand.wait_for_reason("autumn", "Sending", "WaitingForWindow")
    assert "they open at" in waiting["message"]
    assert hand.status("autumn")["phase"] == "Waiting"
    assert hand.condition("autumn", "Suspended")["status"] == "False"
    wait_for("the Job is suspended", lambda: hand.get("job", name)["spec"]["suspend"], interval=0.2)
    wait_for("its pods are gone", lambda: not hand.pods(name), interval=0.2)
    wait_for("the limiter knows when they open", lambda: ahead()[1:] == [2, 4], interval=0.2)
    operator.kill()
    assert ahead()[1:] == [2, 4]  # it holds while the operator is down
    operator.start()
    hand.patch("autumn", {"schedule": {"windows": [window(-1, 2)]}})
    wait_for("the Job goes on", lambda: not hand.get("job", name)["spec"]["suspend"], interval=0.2)
    hand.wait_for_reason("autumn", "Sending", "Sending")
    assert len(hand.jobs("sender")) == 1
    for index in range(1, 4):
        hand.send(job, index)
    hand.finish(name)
    hand.wait_for_reason("autumn", "Complete", "Complete")


def test_outside_its_windows_a_campaign_does_not_begin(hand: Hand) -> None:
    planned(hand, schedule={"windows": [window(2, 4)], "timeZone": "UTC"})
    hand.wait_for_reason("autumn", "Sending", "WaitingForWindow")
    assert "startTime" not in hand.status("autumn")
    assert not hand.jobs("sender")
    hand.patch("autumn", {"schedule": {"windows": None}})
    wait_for("a send Job", lambda: hand.jobs("sender"), interval=0.2)


def test_those_that_failed_are_sent_to_once_more_each_time_the_generation_is_raised(hand: Hand) -> None:
    sending(hand, 500, retryFailed={"generation": 1, "codes": ["250"]})
    hand.send_all("autumn", kind=OutcomeKind.FAILED)
    hand.wait_for_reason("autumn", "Complete", "Complete")
    assert recipients(hand) == {"planned": 500, "failed": 500}
    assert len(hand.jobs("sender")) == 1  # the generation that it was applied with came to nobody
    assert "retryFailed 1 came to nobody: nobody had failed with 250" in hand.condition("autumn", "Complete")["message"]
    assert [e["reason"] for e in hand.list("events")].count("NobodyToRetry") == 1
    hand.patch("autumn", {"retryFailed": {"generation": 2}})
    (retry,) = wait_for("wave 2", lambda: hand.list("jobs", "mailfleet.dev/wave=2"), interval=0.2)
    wait_for("it is open again", lambda: hand.condition("autumn", "Complete")["status"] == "False", interval=0.2)
    assert "completionTime" not in hand.status("autumn")
    hand.send(retry, 0)
    hand.finish(retry["metadata"]["name"])
    hand.wait_for_reason("autumn", "Complete", "Complete")
    assert recipients(hand) == {"planned": 500, "sent": 500}
    assert hand.status("autumn")["retryFailedGeneration"] == 2
    with pytest.raises(KubectlError, match="generation only rises"):
        hand.patch("autumn", {"retryFailed": {"generation": 1}})


def test_a_used_up_quota_is_waited_for(hand: Hand, redis_server: RedisServer) -> None:
    def quota(messages: int) -> None:
        limits = {"rate": "1000/s", "quota": {"messages": messages}}
        hand.kubectl("patch", "emailrelay", "ses", "--type=merge", "-p", json.dumps({"spec": {"limits": limits}}))

    sending(hand)
    quota(100)
    account = f"{hand.namespace}/ses"
    with redis.Redis.from_url(redis_server.url) as client:
        admin = LimiterAdmin(client)
        wait_for("the limiter knows the quota", lambda: admin.state(account).quota is not None, interval=0.2)
        assert admin.write_usage(account, [(datetime.now(UTC), 100)])
    waiting = hand.wait_for_reason("autumn", "Sending", "WaitingForQuota")
    assert "the relay's quota of 100 messages in 24 hours is used up: sending goes on at" in waiting["message"]
    assert hand.condition("autumn", "Throttled")["reason"] == "WaitingForQuota"
    assert hand.status("autumn")["phase"] == "Waiting"
    quota(1000)
    hand.wait_for_reason("autumn", "Sending", "Sending")
    assert hand.condition("autumn", "Throttled")["status"] == "False"
