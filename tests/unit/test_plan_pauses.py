"""What pauses a campaign by itself (brake, sender fault), and how it goes on."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mailfleet_operator import plan, status
from mailfleet_operator.actions import (
    AmendRun,
    CloseRun,
    CompleteRun,
    CreateWaveJob,
    MakeRetryWave,
    PauseRun,
    ReleaseBrake,
    ResumeRun,
    RetryFailed,
    ScaleJob,
    SuspendJob,
    TellLimiter,
)
from mailfleet_operator.conditions import MESSAGE_BYTES, Condition, Type, time_text
from mailfleet_operator.events import of_change
from mailfleet_operator.observation import BrakeView, Pause
from mailfleet_operator.resources import Brake
from mailfleet_sender.contract.accounts import PauseReason, ReportReason, RunState, Totals
from observations import NOW, ago, campaign, ledger, observation, planned, report, run, send_job, started

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation

BRAKE = BrakeView(ago(3), sent=150, failed=40, faults=10)
SPEC = {"maxFailedPercent": 10, "minimumSample": 200}
PAUSE = Pause(PauseReason.BRAKE_APPLIED, "50 of the last 200 mails failed (25 %), most of them with 5.1.1", ago(60.5))


def done(o: Observation, *kinds: type) -> list[object]:
    return [a for a in plan.plan(o).actions if isinstance(a, kinds)]


def said(o: Observation, type_: Type) -> Condition:
    return next(c for c in plan.plan(o).conditions if c.type is type_)


def sending(spec: dict[str, Any] | None = None, view: dict[str, Any] | None = None, **changes: Any) -> Observation:
    found = campaign(started(), **{"brake": SPEC, **(spec or {})})
    return observation(campaign=found, ledger=ledger(**view or {}), **changes)


def paused(pause: Pause = PAUSE, spec: dict[str, Any] | None = None, **changes: Any) -> Observation:
    return sending(spec, {"run": run(pause=pause, paused_at=pause.at), **changes.pop("view", {})}, **changes)


def faulty(seconds_ago: float = 5, **changes: Any) -> Observation:
    """A sender has reported that the relay refuses it."""
    said_so = report(ReportReason.SENDER_FAULT, f"{send_job().name}-0-abcde", "535 5.7.8 wrong password", seconds_ago)
    return sending(view={"reports": (said_so,), "run": run(**changes)})


def at(moment: datetime) -> str | None:
    return time_text(moment)


RESUMES = {"resumeTime": at(ago(30))}


class TestBrake:
    def test_it_is_told_to_the_limiter_live(self) -> None:
        (told,) = done(sending({"brake": {"maxFailedPercent": 7, "minimumSample": 70}}), TellLimiter)
        assert isinstance(told, TellLimiter)
        assert told.brake == Brake(max_failed_percent=7, minimum_sample=70)
        (untold,) = done(observation(), TellLimiter)
        assert isinstance(untold, TellLimiter)
        assert untold.brake is None

    def test_closed_it_is_kept_in_the_ledger_before_all_else(self) -> None:
        o = sending(brake=BRAKE)
        words = "50 of the last 200 mails failed (25 %; brake.maxFailedPercent is 10)"
        kept = PauseRun(5, PauseReason.BRAKE_APPLIED, words, BRAKE.since)
        actions = plan.plan(o).actions
        assert kept in actions
        assert not [a for a in actions[: actions.index(kept)] if not isinstance(a, AmendRun)]

    def test_then_the_jobs_are_suspended_and_the_limiter_hears_of_a_pause(self) -> None:
        o = paused(brake=BRAKE)
        assert done(o, SuspendJob) == [SuspendJob(send_job().name, "j-1", suspend=True)]
        (told,) = done(o, TellLimiter)
        assert isinstance(told, TellLimiter)
        assert told.paused
        assert not done(o, PauseRun, ReleaseBrake, ScaleJob)

    def test_an_emptied_redis_does_not_release_it(self) -> None:
        o = paused(brake=None)
        assert said(o, Type.SUSPENDED).reason == "BrakeApplied"
        assert all(told.paused for told in done(o, TellLimiter) if isinstance(told, TellLimiter))
        assert not done(o, ResumeRun, ReleaseBrake)

    def test_the_condition_names_cause_and_remedy(self) -> None:
        message = said(paused(), Type.SUSPENDED).message
        assert message == (
            "50 of the last 200 mails failed (25 %), most of them with 5.1.1. Mend the cause, then set spec.resumeTime"
            " to 2026-12-01T07:59:00Z or later"
        )

    @pytest.mark.parametrize("letter", ["x", "ä", "€"])
    def test_a_long_cause_leaves_room_for_the_remedy(self, letter: str) -> None:
        message = said(paused(Pause(PauseReason.SENDER_FAULT, letter * 300, ago(60))), Type.SUSPENDED).message
        assert "…. Mend the sender" in message
        assert message.endswith("then set spec.resumeTime to 2026-12-01T07:59:00Z or later")
        assert 250 <= len(message.encode()) <= MESSAGE_BYTES

    def test_one_of_an_older_run_is_released(self) -> None:
        o = sending(brake=replace(BRAKE, since=ago(601)))
        assert done(o, ReleaseBrake, PauseRun) == [ReleaseBrake("marketing/ses")]

    def test_one_that_was_resumed_is_released_in_the_limiter_as_well(self) -> None:
        """Redis was not there when the pause was ended, or was restored from an older copy."""
        o = sending(view={"run": run(paused_at=BRAKE.since, resumed_at=ago(1))}, brake=BRAKE)
        assert done(o, ReleaseBrake, PauseRun) == [ReleaseBrake("marketing/ses")]

    def test_closed_again_it_pauses_again(self) -> None:
        o = sending(view={"run": run(paused_at=ago(300), resumed_at=ago(100))}, brake=BRAKE)
        assert done(o, PauseRun)

    def test_when_nobody_is_left_it_does_not_matter_any_more(self) -> None:
        nothing = {"waves": (), "totals": Totals(planned=1, sent=1)}
        o = sending(view=nothing, brake=BRAKE)
        assert done(o, CompleteRun)
        assert not done(o, PauseRun)

    def test_many_refusals_for_the_sender_s_sake_are_a_sender_fault_without_any_brake_in_the_spec(self) -> None:
        o = replace(observation(), brake=BrakeView(ago(3), sent=40, failed=3, faults=20))
        (pause,) = done(o, PauseRun)
        assert isinstance(pause, PauseRun)
        assert pause.reason is PauseReason.SENDER_FAULT
        assert "20 of the last 63 mails" in pause.message
        assert "5.7.x" in pause.message

    def test_a_warning_tells_of_it(self) -> None:
        events = of_change((), plan.plan(paused()).conditions)
        assert [e.kind for e in events if e.reason == "BrakeApplied"] == ["Warning"]

    def test_before_the_start_there_is_nothing_to_brake(self) -> None:
        o = observation(campaign=campaign(brake=SPEC), ledger=planned(), jobs=(), pods=(), brake=BRAKE)
        assert not done(o, PauseRun)


class TestSenderFault:
    def test_a_report_of_it_pauses_the_campaign_at_once(self) -> None:
        o = faulty()
        (pause,) = done(o, PauseRun)
        assert isinstance(pause, PauseRun)
        assert (pause.reason, pause.at) == (PauseReason.SENDER_FAULT, ago(5))
        assert "535 5.7.8 wrong password" in pause.message
        condition = said(paused(Pause(pause.reason, pause.message, pause.at)), Type.SUSPENDED)
        assert (condition.status, condition.reason) == (True, "SenderFault")
        assert "credentials" in condition.message
        assert "spec.resumeTime" in condition.message

    def test_even_though_other_senders_still_send(self) -> None:
        """Each of their mails would get it next."""
        assert done(replace(faulty(), account_rate=900.0), PauseRun)

    def test_what_was_reported_before_the_pause_ended_is_mended(self) -> None:
        assert not done(faulty(seconds_ago=60, paused_at=ago(60), resumed_at=ago(30)), PauseRun)
        assert done(faulty(seconds_ago=5, paused_at=ago(60), resumed_at=ago(30)), PauseRun)

    def test_a_report_of_before_the_start_counts_not(self) -> None:
        assert not done(faulty(seconds_ago=601), PauseRun)


class TestResume:
    def test_a_time_after_the_pause_ends_it(self) -> None:
        o = paused(spec=RESUMES)
        assert done(o, ResumeRun) == [ResumeRun(5, "marketing/ses", ago(30))]

    def test_the_time_that_the_condition_tells_is_enough(self) -> None:
        told = said(paused(), Type.SUSPENDED).message.split(" to ")[1].split(" ")[0]
        assert done(paused(spec={"resumeTime": told}), ResumeRun)

    @pytest.mark.parametrize("resumes", [None, ago(61), NOW + timedelta(seconds=1)])
    def test_an_earlier_one_or_one_to_come_does_not(self, resumes: datetime | None) -> None:
        o = paused(spec={"resumeTime": at(resumes)} if resumes else {})
        assert not done(o, ResumeRun)
        assert said(o, Type.SUSPENDED).reason == "BrakeApplied"

    def test_the_same_manifest_ends_no_later_pause(self) -> None:
        o = paused(replace(PAUSE, at=ago(29)), spec=RESUMES)
        assert not done(o, ResumeRun)

    def test_no_other_edit_ends_it(self) -> None:
        for spec in ({"suspend": False}, {"brake": {"maxFailedPercent": 100}}, {"brake": None}, {"weight": 1}):
            assert not done(paused(spec=spec), ResumeRun)

    def test_without_its_relay_it_waits(self) -> None:
        assert not done(replace(paused(spec=RESUMES), relay=None), ResumeRun)


class TestWhilePaused:
    def test_nothing_is_begun(self) -> None:
        o = replace(paused(view={"due": 9}, spec={"retryFailed": {"generation": 1, "codes": ["550"]}}), jobs=())
        assert not done(o, CreateWaveJob, MakeRetryWave, RetryFailed)

    def test_it_can_be_cancelled_and_ends_at_its_end_time(self) -> None:
        assert done(paused(spec={"cancel": True}), CloseRun)
        assert done(paused(spec={"schedule": {"endTime": at(ago(1))}}), CloseRun)

    def test_the_pause_is_named_before_closed_windows_and_before_a_person_s_own(self) -> None:
        closed = {"schedule": {"windows": [{"from": "10:00", "to": "12:00"}]}}
        assert said(paused(spec=closed), Type.SENDING).reason == "Suspended"
        assert said(paused(spec={"suspend": True}), Type.SUSPENDED).reason == "BrakeApplied"

    def test_it_has_no_estimate_and_the_phase_says_suspended(self) -> None:
        o = paused()
        assert o.ledger
        assert status.eta(o, o.ledger) is None
        assert status.of_campaign(o, plan.plan(o))["phase"] == "Suspended"

    def test_a_run_that_is_over_has_no_pause(self) -> None:
        view = ledger(RunState.COMPLETE, run=run(RunState.COMPLETE, pause=PAUSE))
        o = observation(campaign=campaign(started()), ledger=view)
        assert not done(o, PauseRun, ResumeRun)
        assert not [c for c in plan.plan(o).conditions if c.type is Type.SUSPENDED]
