"""Canary steps, the brake and a relay that refuses the sender, on a real node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from e2e.house import holds_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.stage import Stage

REPLY = "554 5.3.0 not today"


def some_fail(stage: Stage, digits: str) -> dict[str, Any]:
    """Of the recipients, those whose number ends with one of these digits are refused."""
    return {"phase": "rcpt", "recipient": f"^user[0-9]*[{digits}]@{stage.domain}$", "reply": REPLY}


def told_time(stage: Stage) -> str:
    """The time that the condition tells to write."""
    return str(stage.condition("Suspended")["message"]).split("spec.resumeTime to ")[1].split(" ")[0]


def stands_still(stage: Stage) -> None:
    """Nothing is mailed, and all that was is accounted for."""
    stage.until("its pods have ended", lambda: not stage.pods(), seconds=60)
    before = len(stage.accepted())
    assert holds_for(4, lambda: len(stage.accepted()) == before)
    stage.until("what was in flight is accounted for", lambda: stage.count("sent") == before, seconds=20)
    recipients = stage.status["recipients"]
    assert recipients["planned"] == sum(v for k, v in recipients.items() if k != "planned")
    assert recipients["uncertain"] == 0


def goes_round(stage: Stage) -> None:
    """Complete, and those that failed are sent to once more."""
    stage.until_complete(seconds=120)
    failed = stage.count("failed")
    assert failed > 0
    stage.apply(retryFailed={"generation": 1, "codes": ["5.3.0"]})
    stage.until("they are sent", lambda: stage.count("failed") == 0, seconds=90)
    stage.until_complete(seconds=60)
    stage.balance()


def test_a_canary_halts_on_failures_and_goes_on_when_it_is_approved(make_stage: Callable[..., Stage]) -> None:
    canary = {"steps": [{"recipients": 200}, {"percent": 10}], "pauseSeconds": 5}
    stage = make_stage("canary", spec={"canary": canary})
    stage.fill(3_000)
    stage.house.oracle.behave(some_fail(stage, "01"))  # 20 %
    stage.apply_relay()
    stage.apply()
    stage.until_condition("Sending", "False", reason="WaitingForApproval", seconds=90)
    message = stage.condition("Sending")["message"]
    assert "canary step 1 of 2" in message
    assert "of 200 failed" in message
    assert "5.3.0" in message
    assert "spec.canary.approvedStep to 1" in message
    stands_still(stage)
    assert stage.count("sent") + stage.count("failed") == 200
    assert "WaitingForApproval" in stage.kubectl("describe", "emailcampaign", "news")
    stage.apply()  # the same manifest approves nothing
    assert holds_for(4, lambda: stage.count("sent") + stage.count("failed") == 200)
    stage.house.oracle.behave()
    stage.apply(canary={**canary, "approvedStep": 1})
    stage.until("the second step is sent", lambda: stage.count("sent") + stage.count("failed") > 200, seconds=60)
    goes_round(stage)


def test_the_brake_closes_on_failures_and_the_campaign_goes_on_when_it_is_released(
    make_stage: Callable[..., Stage],
) -> None:
    stage = make_stage("brake", rate="100/s", spec={"brake": {"maxFailedPercent": 10, "minimumSample": 100}})
    stage.fill(3_000)
    stage.house.oracle.behave(some_fail(stage, "0-2"))  # 30 %
    stage.apply_relay()
    stage.apply()
    stage.until_condition("Suspended", reason="BrakeApplied", seconds=90)
    assert "5.3.0" in stage.condition("Suspended")["message"]
    stands_still(stage)
    assert stage.count("remaining") > 1_500
    stage.apply(brake={"maxFailedPercent": 100})  # no edit but one releases it
    assert holds_for(4, lambda: stage.holds("Suspended", reason="BrakeApplied") or not stage.pods())
    stage.house.oracle.behave()
    stage.relay["limits"] = {"rate": "1000/s"}
    stage.apply_relay()
    stage.apply(resumeTime=told_time(stage))
    stage.until_condition("Suspended", "False", seconds=30)
    goes_round(stage)


def test_a_relay_that_refuses_the_sender_pauses_it_and_burns_nobody(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("sender-fault", rate="100/s")
    stage.fill(2_000)
    stage.apply_relay()
    stage.apply()
    stage.until_accepted(200)
    stage.house.oracle.behave({"phase": "mail", "reply": "530 5.7.0 Authentication required"})
    stage.until_condition("Suspended", reason="SenderFault", seconds=60)
    assert "530 5.7.0" in stage.condition("Suspended")["message"]
    stands_still(stage)
    assert stage.count("failed") == stage.count("deferred") == 0
    stage.house.oracle.behave()
    stage.relay["limits"] = {"rate": "1000/s"}
    stage.apply_relay()
    stage.apply(resumeTime=told_time(stage))
    stage.until_complete(seconds=120)
    stage.balance()
