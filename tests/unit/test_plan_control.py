"""What a person does to a run under way: cancel, an end time, another try for those that failed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailfleet_operator import events, plan, status
from mailfleet_operator.actions import (
    CloseRun,
    CompleteRun,
    CreatePlanJob,
    CreateWaveJob,
    DeleteJob,
    EnsureRun,
    MakeRetryWave,
    RecordStart,
    RetryFailed,
    StartRun,
    SuspendJob,
    TellLimiter,
)
from mailfleet_operator.conditions import Condition, Type, false, time_text
from mailfleet_operator.observation import LedgerView, Observation, WaveView
from mailfleet_sender.contract.accounts import EndReason, RunState, Totals, WaveKind
from observations import (
    NOW,
    ago,
    campaign,
    ledger,
    main_wave,
    observation,
    plan_job,
    planned,
    planning,
    pod,
    relay,
    run,
    send_job,
    started,
)

BEGINS = (CreatePlanJob, CreateWaveJob, MakeRetryWave, RecordStart, StartRun)
DONE = {"totals": Totals(planned=10, sent=10), "waves": (main_wave(open=0, finished=4),)}
CANCEL = CloseRun(5, RunState.CANCELLED)
END = CloseRun(5, RunState.FAILED, EndReason.END_TIME_REACHED)


def done(o: Observation, *kinds: type) -> list[object]:
    return [a for a in plan.plan(o).actions if isinstance(a, kinds)]


def said(o: Observation, type_: Type) -> Condition:
    return next(c for c in plan.plan(o).conditions if c.type is type_)


def cancelled(**changes: Any) -> Observation:
    """A campaign whose spec says cancel."""
    return replace(observation(campaign=campaign(started(), cancel=True)), **changes)


def ending(seconds: float, **changes: Any) -> Observation:
    """A campaign whose end time is so many seconds ahead."""
    schedule = {"endTime": time_text(NOW + timedelta(seconds=seconds))}
    return replace(observation(campaign=campaign(started(), schedule=schedule)), **changes)


class TestCancel:
    def test_senders_drain_the_limiter_closes_and_the_ledger_ends_the_run(self) -> None:
        job = send_job()
        assert plan.plan(cancelled()).actions == (
            SuspendJob(job.name, job.uid, suspend=True),
            TellLimiter("marketing/ses", 100, paused=True),
            CANCEL,
        )
        assert said(cancelled(), Type.SENDING).reason == "Cancelling"

    def test_a_job_that_drains_already_is_left_alone(self) -> None:
        assert not done(cancelled(jobs=(send_job(suspended=True),)), SuspendJob)

    @pytest.mark.parametrize("view", [planning(), planned()], ids=["planning", "planned"])
    def test_before_the_start_it_begins_nothing(self, view: LedgerView) -> None:
        o = cancelled(ledger=view, jobs=(plan_job(),), pods=())
        assert done(o, CloseRun) == [CANCEL]
        assert done(o, DeleteJob)
        assert not done(o, *BEGINS)

    def test_applied_with_cancel_it_has_a_run_that_says_so(self) -> None:
        o = cancelled(campaign=campaign(cancel=True), ledger=LedgerView(), jobs=(), pods=())
        assert plan.plan(o).actions == (EnsureRun(),)

    def test_it_needs_no_relay(self) -> None:
        assert done(cancelled(relay=None), CloseRun) == [CANCEL]

    def test_a_paused_run_is_cancelled_as_well(self) -> None:
        o = cancelled(campaign=campaign(started(), cancel=True, suspend=True), jobs=(send_job(suspended=True),))
        assert done(o, CloseRun) == [CANCEL]

    def test_with_nothing_left_to_cancel_the_run_is_complete(self) -> None:
        o = cancelled(ledger=ledger(**DONE))
        assert done(o, CloseRun, CompleteRun) == [CompleteRun(5)]

    def test_senders_without_a_job_are_named_for_nobody_ends_them(self) -> None:
        job = send_job()
        o = cancelled(jobs=(), pods=(pod(job, 0), pod(job, 1, phase="Succeeded")))
        found = said(o, Type.STALLED)
        assert (found.status, found.reason) == (True, "PodsOrphaned")
        assert f"delete {pod(job, 0).name}" in found.message
        assert not [c for c in plan.plan(cancelled()).conditions if c.type is Type.STALLED]

    @pytest.mark.parametrize(
        ("since", "left", "fenced"), [(61, "Failed", True), (59, "Failed", False), (61, "Running", False)]
    )
    def test_a_lease_is_not_waited_out_once_nobody_is_left_to_drain(self, since: int, left: str, fenced: bool) -> None:
        """A sender that lives on, on a lost node, renews its lease for ever (found by the model test)."""
        job = send_job(suspended=True)
        draining = replace(false(Type.SENDING, "Cancelling", ""), since=ago(since))
        o = cancelled(
            campaign=campaign({**started(), "conditions": [draining.as_manifest()]}, cancel=True),
            jobs=(job,),
            pods=(pod(job, 0, phase=left), replace(pod(job, 1), component="planner")),
        )
        assert done(o, CloseRun) == [replace(CANCEL, fence=fenced)]

    def test_of_a_file_it_still_says_as_of_when(self) -> None:
        o = cancelled()
        assert o.ledger
        read = replace(o, ledger=replace(o.ledger, file_read_at=ago(3600)))
        assert said(read, Type.PLANNED).message == plan.planning.counted(read)
        assert "the file as of" in said(read, Type.PLANNED).message
        assert "the file" not in said(o, Type.PLANNED).message

    def test_once_some_count_as_cancelled_it_is_never_complete(self) -> None:
        """The last sender ended after the first ranges had been closed (found by the model test)."""
        totals = Totals(planned=10, sent=8, cancelled=2)
        o = cancelled(ledger=ledger(totals=totals, waves=(main_wave(open=0, finished=4),)))
        assert done(o, CompleteRun, CloseRun) == [CANCEL]

    def test_applied_again_without_cancel_it_stays_cancelled(self) -> None:
        totals = Totals(planned=10, sent=3, cancelled=2, remaining=5)
        o = observation(ledger=ledger(totals=totals))
        assert done(o, CloseRun, *BEGINS) == [CANCEL]
        assert "2 recipients count as cancelled already" in said(o, Type.SENDING).message

    def test_a_complete_run_stays_complete(self) -> None:
        o = cancelled(ledger=ledger(RunState.COMPLETE, **DONE), jobs=())
        assert not done(o, CloseRun)
        assert said(o, Type.COMPLETE).status

    def test_the_end_says_what_was_sent_and_what_was_not(self) -> None:
        totals = Totals(planned=10, sent=7, cancelled=3)
        o = cancelled(ledger=ledger(RunState.CANCELLED, totals=totals), jobs=(send_job(suspended=True),))
        failed = said(o, Type.FAILED)
        assert (failed.status, failed.reason) == (True, "Cancelled")
        assert "7 sent, 3 not sent" in failed.message
        assert done(o, DeleteJob)

    def test_a_run_that_is_being_cancelled_has_no_estimate(self) -> None:
        o = cancelled()
        assert o.ledger
        assert status.eta(o, o.ledger) is None
        assert status.of_campaign(o, plan.plan(o))["phase"] == "Cancelling"


class TestEndTime:
    def test_until_then_it_sends(self) -> None:
        assert not done(ending(1), CloseRun)

    @pytest.mark.parametrize("seconds", [0, -1, -86_400])
    def test_then_the_run_is_ended(self, seconds: float) -> None:
        o = ending(seconds)
        assert done(o, CloseRun) == [END]
        assert done(o, SuspendJob)
        assert said(o, Type.SENDING).reason == "Ending"
        assert "schedule.endTime" in said(o, Type.SENDING).message

    @pytest.mark.parametrize("view", [planning(), planned()], ids=["planning", "planned"])
    def test_a_run_that_comes_too_late_is_never_started(self, view: LedgerView) -> None:
        o = ending(-1, ledger=view, jobs=(), pods=())
        assert done(o, CloseRun) == [END]
        assert not done(o, *BEGINS)

    def test_it_holds_for_a_suspended_run(self) -> None:
        schedule = {"endTime": time_text(ago(1))}
        o = observation(campaign=campaign(started(), suspend=True, schedule=schedule))
        assert done(o, CloseRun) == [END]

    def test_a_run_of_which_nothing_is_left_is_complete(self) -> None:
        assert done(ending(-1, ledger=ledger(**DONE)), CloseRun, CompleteRun) == [CompleteRun(5)]

    def test_the_limiter_hears_of_it_ahead_with_room_for_permits_that_are_out(self) -> None:
        (told,) = done(ending(3600), TellLimiter)
        assert told == TellLimiter("marketing/ses", 100, paused=False, open_until=NOW + timedelta(seconds=3598))

    def test_the_condition_tells_the_reason_though_the_campaign_was_applied_again_without_it(self) -> None:
        row = run(RunState.FAILED, end_reason="EndTimeReached")
        o = observation(campaign=campaign(), ledger=ledger(RunState.FAILED, run=row), jobs=(), relay=relay())
        assert said(o, Type.FAILED).reason == "EndTimeReached"
        assert "schedule.endTime" in said(o, Type.FAILED).message
        assert "runId" in said(o, Type.FAILED).message


class TestRetryFailed:
    COMPLETE = ledger(RunState.COMPLETE, totals=Totals(planned=900, sent=500, failed=400), waves=DONE["waves"])

    def asked(self, view: LedgerView | None = None, **spec: Any) -> Observation:
        asked = {"generation": 2, "codes": ["5.7.1", "Uncertain"]}
        found = campaign(started(), retryFailed=asked, **spec)
        return observation(campaign=found, ledger=view or self.COMPLETE, jobs=(), pods=())

    def test_a_raised_generation_sends_to_them_once_more(self) -> None:
        assert done(self.asked(), RetryFailed) == [RetryFailed(5, 2, ("5.7.1", "Uncertain"), 1000)]

    def test_so_it_does_while_the_run_is_open(self) -> None:
        assert done(self.asked(ledger()), RetryFailed)

    @pytest.mark.parametrize("generation", [2, 3])
    def test_a_generation_that_was_done_is_not_done_again(self, generation: int) -> None:
        row = run(RunState.COMPLETE, retry_generation=generation)
        assert not done(self.asked(replace(self.COMPLETE, run=row)), RetryFailed)

    def test_a_generation_that_came_to_nobody_says_so(self) -> None:
        row = run(RunState.COMPLETE, retry_generation=2, retried=0)
        o = self.asked(replace(self.COMPLETE, run=row))
        words = "retryFailed 2 came to nobody: nobody had failed with 5.7.1, Uncertain"
        assert said(o, Type.COMPLETE).message.endswith(words)
        under_way = self.asked(ledger(run=run(retry_generation=2, retried=0)))
        assert words in said(replace(under_way, jobs=(send_job(),)), Type.SENDING).message

    @pytest.mark.parametrize(("generation", "retried"), [(2, 7), (2, None), (1, 0), (3, 0)])
    def test_others_are_not_spoken_of(self, generation: int, retried: int | None) -> None:
        row = run(RunState.COMPLETE, retry_generation=generation, retried=retried)
        assert "nobody" not in said(self.asked(replace(self.COMPLETE, run=row)), Type.COMPLETE).message

    def test_it_is_an_event_once(self) -> None:
        assert [e.reason for e in events.of_retry(1, 2, "nobody")] == ["NobodyToRetry"]
        assert events.of_retry(2, 2, "nobody") == events.of_retry(1, 2, None) == ()

    @pytest.mark.parametrize("state", [RunState.CANCELLED, RunState.FAILED, RunState.SUPERSEDED, RunState.PLANNED])
    def test_a_run_that_has_not_started_or_was_ended_is_left_alone(self, state: RunState) -> None:
        assert not done(self.asked(ledger(state)), RetryFailed)

    def test_the_wave_of_an_earlier_generation_is_waited_for(self) -> None:
        retry = WaveView(2, WaveKind.RETRY, ranges=1, finished=0, open=1)
        assert not done(self.asked(ledger(waves=(main_wave(), retry))), RetryFailed)

    @pytest.mark.parametrize(
        "spec", [{"suspend": True}, {"cancel": True}, {"schedule": {"endTime": time_text(ago(1))}}], ids=str
    )
    def test_what_is_in_the_way_is_named(self, spec: dict[str, Any]) -> None:
        o = self.asked(**spec)
        assert not done(o, RetryFailed)
        (name,) = spec if "schedule" not in spec else ("endTime",)
        assert "retryFailed waits" in said(o, Type.COMPLETE).message
        assert name in said(o, Type.COMPLETE).message
