"""When mail may be sent, and how a run is ended, on a real node."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from e2e.house import holds_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.house import House
    from e2e.stage import Stage

OPERATOR = ("scale", "deployment", "--selector=app.kubernetes.io/component=operator")


def window(first: datetime, last: datetime) -> dict[str, Any]:
    """A window of every day, by UTC's clocks."""
    return {"from": f"{first:%H:%M}", "to": f"{last:%H:%M}"}


def from_now(**parts: float) -> datetime:
    return datetime.now(UTC) + timedelta(**parts)


def ended(stage: Stage) -> None:
    """The books of a run that was ended: the sum holds, and the oracle accepted what is sent, nobody twice."""
    recipients, arrived = stage.status["recipients"], stage.arrived()
    assert recipients["planned"] == sum(v for k, v in recipients.items() if k != "planned")
    assert recipients["remaining"] == recipients["deferred"] == recipients["uncertain"] == 0
    assert recipients["cancelled"] > 0
    assert arrived.total() == len(arrived) == recipients["sent"]
    verdicts = stage.verdicts()
    mailed = {address for key, address in stage.expected().items() if verdicts.get(key) == ["sent"]}
    assert set(arrived) == mailed


def test_cancelled_it_accounts_for_what_is_in_flight_and_sends_no_more(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("cancelled", rate="100/s")
    stage.fill(3_000)
    stage.apply_relay()
    stage.apply()
    stage.until_accepted(300)
    stage.apply(cancel=True)
    stage.until_condition("Failed", reason="Cancelled", seconds=90)
    stage.until("its pods are gone", lambda: not stage.pods(), seconds=60)
    before = len(stage.accepted())
    assert holds_for(4, lambda: len(stage.accepted()) == before)
    ended(stage)
    assert "Cancelled" in stage.kubectl("describe", "emailcampaign", "news")


def test_the_end_time_ends_it(make_stage: Callable[..., Stage]) -> None:
    end = from_now(seconds=120)
    stage = make_stage("end-time", rate="20/s", spec={"schedule": {"endTime": f"{end:%Y-%m-%dT%H:%M:%SZ}"}})
    stage.fill(3_000)
    stage.apply_relay()
    stage.apply()
    stage.until_accepted(50)
    stage.until_condition("Failed", reason="EndTimeReached", seconds=150)
    # A permit of the last second may be used a little later.
    assert max(e["time"] for e in stage.accepted()) < end.timestamp() + 5
    ended(stage)


def test_outside_its_windows_it_waits_without_pods(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("windows", rate="100/s", spec={"schedule": {"windows": [window(from_now(), from_now(hours=2))]}})
    stage.fill(2_000)
    stage.apply_relay()
    stage.apply()
    stage.until_accepted(200)
    stage.apply(schedule={"windows": [window(from_now(hours=2), from_now(hours=3))]})
    stage.until_condition("Sending", "False", reason="WaitingForWindow", seconds=30)
    stage.until("its pods have ended", lambda: not stage.pods(), seconds=60)
    before = len(stage.accepted())
    assert before < 1_900
    assert holds_for(4, lambda: len(stage.accepted()) == before)
    assert stage.count("uncertain") == 0
    stage.apply(schedule={"windows": [window(from_now(), from_now(hours=2))]})
    stage.until_complete(seconds=120)
    stage.balance()


def test_windows_close_and_open_with_the_operator_stopped(make_stage: Callable[..., Stage], mailfleet: House) -> None:
    stage = make_stage("windows-alone", rate="20/s")
    stage.fill(6_000)
    stage.apply_relay()
    stage.apply()
    stage.until_accepted(20)
    closes = from_now(seconds=135).replace(second=0, microsecond=0)
    opens = closes + timedelta(minutes=1)
    stage.apply(schedule={"windows": [window(from_now(hours=-1), closes), window(opens, opens + timedelta(hours=2))]})
    stage.until("it was heard", lambda: stage.holds("Sending", "True"), seconds=20)
    mailfleet.kubectl(*OPERATOR, "--replicas=0")
    try:
        stage.until("the operator is gone", lambda: not mailfleet.operator_pod(), seconds=60)
        assert time.time() < closes.timestamp(), "it was gone before the window closed"
        stage.until("it is open again", lambda: time.time() > opens.timestamp() + 5, seconds=200)
        stage.until("mail goes out again", lambda: stage.accepted()[-1]["time"] > opens.timestamp(), seconds=60)
    finally:
        mailfleet.kubectl(*OPERATOR, "--replicas=1")
    outside = [e for e in stage.accepted() if closes.timestamp() < e["time"] < opens.timestamp()]
    assert outside == []
    stage.relay["limits"] = {"rate": "1000/s"}
    stage.apply_relay()
    stage.until_complete(seconds=180)
    stage.balance()


def test_a_used_up_quota_is_waited_for(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("used-up-quota", relay={"limits": {"rate": "1000/s", "quota": {"messages": 500}}})
    stage.fill(2_000)
    stage.apply_relay()
    stage.apply()
    stage.until_condition("Sending", "False", reason="WaitingForQuota", seconds=90)
    assert stage.holds("Throttled", reason="WaitingForQuota")
    assert holds_for(4, lambda: len(stage.accepted()) <= 500)
    stage.relay["limits"] = {"rate": "1000/s", "quota": {"messages": 5_000}}
    stage.apply_relay()
    stage.until_complete(seconds=90)
    stage.balance()


def test_those_that_failed_are_sent_to_once_more(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("retry-failed")
    stage.fill(500)
    refused = {"phase": "dot", "recipient": f"^user[0-9]*1@{stage.domain}$", "reply": "554 5.7.1 refused by policy"}
    stage.house.oracle.behave(refused)
    stage.apply_relay()
    stage.apply()
    stage.until_complete(seconds=90)
    failed = stage.count("failed")
    assert failed > 0
    stage.house.oracle.behave()
    stage.apply(retryFailed={"generation": 1, "codes": ["5.7.1"]})
    stage.until("they are sent", lambda: stage.count("failed") == 0, seconds=90)
    stage.until_complete(seconds=60)
    stage.balance()
