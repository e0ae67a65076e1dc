"""The canary policy: what a step that has ended waits for, and when the next one begins."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from mailfleet_operator import plan, status
from mailfleet_operator.actions import (
    CloseRun,
    CompleteRun,
    CreateWaveJob,
    EndStep,
    MakeRepairWave,
    MakeRetryWave,
    PassStep,
    PauseRun,
    ScaleJob,
)
from mailfleet_operator.conditions import Condition, Type
from mailfleet_operator.events import of_change
from mailfleet_operator.observation import Pause, StepView, WaveView
from mailfleet_operator.pace import Pace, Sample
from mailfleet_sender.contract.accounts import PauseReason, Totals, WaveKind
from observations import NOW, ago, campaign, ledger, observation, run, send_job, started

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation, RunView

CANARY: dict[str, Any] = {
    "steps": [{"recipients": 100}, {"percent": 5}],
    "maxFailedPercent": 5,
    "maxDeferredPercent": 20,
    "pauseSeconds": 600,
}
GOOD = StepView(1, held=False, planned=100, ended_at=ago(700), sent=97, failed=3)
BAD = replace(GOOD, sent=80, failed=20, code="5.1.1")


def done(o: Observation, *kinds: type) -> list[object]:
    return [a for a in plan.plan(o).actions if isinstance(a, kinds)]


def said(o: Observation, type_: Type = Type.SENDING) -> Condition | None:
    return next((c for c in plan.plan(o).conditions if c.type is type_), None)


def reason(o: Observation) -> str:
    condition = said(o)
    return condition.reason if condition else ""


def waves(begun: int, open_: tuple[int, ...] = ()) -> tuple[WaveView, ...]:
    """Two steps and Main, of which the first `begun` have begun; those that have not, and `open_`, are open."""
    kinds = (WaveKind.CANARY, WaveKind.CANARY, WaveKind.MAIN)
    return tuple(
        WaveView(n, kind, ranges=1, finished=int(n <= begun and n not in open_), open=int(n > begun or n in open_),
                 held=n > begun)
        for n, kind in enumerate(kinds, 1)
    )  # fmt: skip


def canary_run(**changes: Any) -> RunView:
    """The run of a campaign with this canary."""
    definition = campaign(canary=CANARY).definition
    assert definition
    return run(definition_hash=definition.definition_hash(), **changes)


def canary(step: StepView = GOOD, **changes: Any) -> Observation:
    """Step `step.number` has begun, what comes behind it has not; changes of the canary's spec, or of what is seen."""
    spec = {**CANARY, **{k: changes.pop(k) for k in list(changes) if k in {*CANARY, "approval", "approvedStep"}}}
    steps = [StepView(n, held=n > step.number, planned=100, ended_at=ago(9999) if n < step.number else None)
             for n in (1, 2)]  # fmt: skip
    steps[step.number - 1] = step
    seen = {
        "waves": waves(step.number, (step.number,) if step.open else ()),
        "steps": tuple(steps),
        "totals": Totals(planned=20_000, sent=97, failed=3, skipped=1_000, remaining=18_900),
        "run": canary_run(),
        **changes.pop("ledger", {}),
    }
    view = ledger(**seen)
    more = changes.pop("spec", {})
    job = send_job(step.number)
    job = job if step.open else replace(job, complete=True, active=0, ended_at=ago(60))
    return observation(
        campaign=campaign(started(), canary=spec, **more), ledger=view, jobs=(job,), **{"pods": (), **changes}
    )


class TestBetweenTheSteps:
    def test_while_a_step_is_sent_nothing_else_begins(self) -> None:
        o = canary(replace(GOOD, open=1, ended_at=None))
        assert not done(o, EndStep, PassStep, CreateWaveJob, MakeRetryWave)
        assert reason(o) == "Sending"

    def test_waves_behind_it_get_no_job_and_no_senders(self) -> None:
        o = replace(canary(replace(GOOD, open=1, ended_at=None)), jobs=())
        assert [a.wave for a in done(o, CreateWaveJob) if isinstance(a, CreateWaveJob)] == [1]
        wanted, _ = plan.senders.sizes(o)
        assert set(wanted) == {1}
        assert not done(canary(), ScaleJob, CreateWaveJob)

    def test_its_end_is_noted_before_its_pause_counts(self) -> None:
        o = canary(replace(GOOD, ended_at=None))
        assert done(o, EndStep, PassStep) == [EndStep(5, 1)]

    def test_the_next_step_begins_when_the_pause_is_over(self) -> None:
        assert done(canary(), PassStep) == [PassStep(5, 1)]
        waiting = canary(replace(GOOD, ended_at=ago(599)))
        assert not done(waiting, PassStep)
        assert reason(waiting) == "CanaryPause"
        condition = said(waiting)
        assert condition
        assert condition.message == (
            "canary step 1 of 2 is done: 97 sent, 3 failed, 0 deferred. Its pause is over at 2026-12-01T08:00:01Z"
        )

    def test_without_a_pause_it_begins_at_once(self) -> None:
        assert done(canary(replace(GOOD, ended_at=NOW), pauseSeconds=0), PassStep)

    def test_main_begins_after_the_last_step(self) -> None:
        assert done(canary(replace(GOOD, number=2)), PassStep) == [PassStep(5, 2)]

    def test_when_all_have_passed_there_is_nothing_to_judge(self) -> None:
        o = observation(campaign=campaign(started(), canary=CANARY))
        assert plan.canary.policy(o) is None

    def test_the_run_is_not_complete_while_a_wave_waits(self) -> None:
        assert not done(canary(BAD), CompleteRun)

    def test_in_a_suspended_paused_or_closed_campaign_no_step_passes(self) -> None:
        assert not done(canary(spec={"suspend": True}), PassStep)
        assert not done(canary(spec={"schedule": {"windows": [{"from": "10:00", "to": "12:00"}]}}), PassStep)
        pause = Pause(PauseReason.BRAKE_APPLIED, "why", ago(5))
        assert not done(canary(ledger={"run": canary_run(pause=pause)}), PassStep)

    def test_a_step_whose_ranges_moved_into_a_repair_wave_has_not_ended(self) -> None:
        step = replace(GOOD, open=1, ended_at=None)
        repair = WaveView(4, WaveKind.REPAIR, ranges=1, finished=0, open=1)
        o = replace(canary(step, ledger={"waves": (*waves(1), repair)}), jobs=())
        assert not done(o, PassStep, EndStep)
        assert [a.wave for a in done(o, CreateWaveJob) if isinstance(a, CreateWaveJob)] == [4]

    def test_a_step_that_its_job_left_unfinished_is_repaired(self) -> None:
        over = replace(send_job(1), failed_reason="BackoffLimitExceeded", ended_at=ago(60), active=0)
        o = replace(canary(replace(GOOD, open=1, ended_at=None)), jobs=(over,))
        assert done(o, MakeRepairWave) == [MakeRepairWave(5, 1)]

    def test_the_deferred_are_tried_again_beside_a_step(self) -> None:
        o = canary(replace(GOOD, open=1, ended_at=None), ledger={"due": 5})
        assert done(o, MakeRetryWave)

    def test_its_end_time_ends_it_wherever_it_stands(self) -> None:
        assert done(canary(BAD, spec={"schedule": {"endTime": "2026-12-01T07:59:00Z"}}), CloseRun)

    def test_a_step_ends_in_a_suspended_campaign_as_well(self) -> None:
        assert done(canary(replace(GOOD, ended_at=None), spec={"suspend": True}), EndStep)


class TestOutOfBounds:
    def test_too_many_failures_halt_it_with_figures_and_remedy(self) -> None:
        o = canary(BAD)
        assert not done(o, PassStep, CreateWaveJob)
        condition = said(o)
        assert condition
        assert (condition.status, condition.reason) == (False, "WaitingForApproval")
        assert condition.message == (
            "canary step 1 of 2: 20 of 100 failed (20 %, most with 5.1.1; maxFailedPercent is 5). Nobody is mailed."
            " Mend it, then set spec.canary.approvedStep to 1 to go on, or spec.cancel to end it"
        )

    def test_it_says_so_before_its_pause_is_over(self) -> None:
        assert reason(canary(replace(BAD, ended_at=NOW))) == "WaitingForApproval"

    def test_the_bounds_are_the_campaigns(self) -> None:
        deferred = replace(GOOD, sent=70, failed=0, deferred=30)
        assert done(canary(BAD, maxFailedPercent=20), PassStep)
        assert not done(canary(BAD, maxFailedPercent=19), PassStep)
        assert done(canary(deferred, maxDeferredPercent=30), PassStep)
        assert not done(canary(deferred, maxDeferredPercent=29), PassStep)

    def test_too_many_deferred_halt_it(self) -> None:
        o = canary(replace(GOOD, sent=76, failed=3, deferred=21))
        condition = said(o)
        assert condition
        assert "21 of 100 were deferred (21 %; maxDeferredPercent is 20)" in condition.message

    def test_the_bounds_themselves_are_within(self) -> None:
        assert done(canary(replace(GOOD, sent=75, failed=5, deferred=20)), PassStep)

    def test_shares_are_of_those_of_whom_the_relay_was_asked(self) -> None:
        """90 of the step's recipients were gone since the plan: 1 of 10 failed."""
        assert reason(canary(replace(GOOD, sent=9, failed=1))) == "WaitingForApproval"

    def test_a_step_of_which_nobody_was_mailed_is_within(self) -> None:
        assert done(canary(replace(GOOD, sent=0, failed=0)), PassStep)

    def test_while_it_is_halted_the_deferred_are_not_tried_again(self) -> None:
        assert not done(canary(BAD, ledger={"due": 5}), MakeRetryWave)
        assert done(canary(replace(GOOD, ended_at=ago(5)), ledger={"due": 5}), MakeRetryWave)

    def test_somebody_hears_of_it(self) -> None:
        conditions = plan.plan(canary(BAD)).conditions
        (event,) = [e for e in of_change((), conditions) if e.reason == "WaitingForApproval"]
        assert event.kind == "Warning"
        assert not of_change(conditions, conditions)


class TestApproval:
    def test_approved_it_goes_on_whatever_became_of_it(self) -> None:
        assert done(canary(BAD, approvedStep=1), PassStep) == [PassStep(5, 1)]

    def test_approved_it_does_not_wait_for_its_pause(self) -> None:
        assert done(canary(replace(GOOD, ended_at=NOW), approvedStep=1), PassStep)

    def test_the_approval_of_a_step_says_nothing_of_the_next_one(self) -> None:
        o = canary(replace(BAD, number=2), approvedStep=1)
        assert not done(o, PassStep)
        condition = said(o)
        assert condition
        assert "set spec.canary.approvedStep to 2" in condition.message

    def test_by_hand_each_step_waits_for_it(self) -> None:
        o = canary(approval="Manual")
        assert not done(o, PassStep)
        condition = said(o)
        assert condition
        assert (condition.reason, condition.message) == (
            "WaitingForApproval",
            "canary step 1 of 2 is done: 97 sent, 3 failed, 0 deferred. To go on, set spec.canary.approvedStep to 1",
        )
        assert done(canary(approval="Manual", approvedStep=1), PassStep)

    def test_what_was_approved_before_the_run_does_not_count(self) -> None:
        """The campaign was deleted and applied anew, with another runId and an approval for the run before."""

        def made_with(o: Observation, approved: int) -> Observation:
            assert o.ledger
            assert o.ledger.run
            return replace(o, ledger=replace(o.ledger, run=replace(o.ledger.run, approved_before=approved)))

        for step, parts in ((BAD, {}), (GOOD, {"approval": "Manual"})):
            o = canary(step, approvedStep=1, **parts)
            assert done(o, PassStep)
            assert done(made_with(o, 2), PassStep), "another one was, before"
            o = made_with(o, 1)
            assert not done(o, PassStep)
            condition = said(o)
            assert condition
            assert condition.reason == "WaitingForApproval"
            assert (
                "approvedStep to 1 (take it out first: the 1 that is there is older than this run)" in condition.message
            )

    def test_one_that_is_not_done_is_not_cut_short(self) -> None:
        o = canary(replace(GOOD, open=1, ended_at=None), approvedStep=2)
        assert not done(o, PassStep, EndStep)


class TestStatus:
    def test_a_canary_has_no_estimate(self) -> None:
        pace = Pace((Sample(ago(20), 0), Sample(NOW, 200)), 200, 0, NOW)
        o = canary(replace(GOOD, open=1, ended_at=None), pace=pace)
        assert o.ledger
        assert status.eta(o, o.ledger) is None

    def test_what_waits_is_waiting(self) -> None:
        assert status.of_campaign(canary(BAD), plan.plan(canary(BAD)))["phase"] == "Waiting"

    def test_the_wave_that_people_see_is_the_step(self) -> None:
        o = canary(replace(GOOD, open=1, ended_at=None))
        assert status.of_campaign(o, plan.plan(o))["wave"]["kind"] == "Canary"


@given(
    sent=st.integers(0, 1000),
    failed=st.integers(0, 1000),
    deferred=st.integers(0, 1000),
    uncertain=st.integers(0, 9),
    max_failed=st.integers(0, 100),
    max_deferred=st.integers(0, 100),
)
def test_whatever_came_of_a_step_it_passes_or_says_why_not(
    sent: int, failed: int, deferred: int, uncertain: int, max_failed: int, max_deferred: int
) -> None:
    step = replace(GOOD, sent=sent, failed=failed, deferred=deferred, uncertain=uncertain)
    tried = sent + failed + deferred + uncertain
    within = failed * 100 <= max_failed * tried and deferred * 100 <= max_deferred * tried
    o = canary(step, maxFailedPercent=max_failed, maxDeferredPercent=max_deferred)
    assert bool(done(o, PassStep)) is within
    condition = said(o)
    assert (condition is None or condition.reason != "WaitingForApproval") is within
    approved = canary(step, maxFailedPercent=max_failed, maxDeferredPercent=max_deferred, approvedStep=1)
    assert done(approved, PassStep)
    later = replace(o, now=NOW + timedelta(days=9))
    assert bool(done(later, PassStep)) is within  # time alone lets nothing pass
    assert not done(o, PauseRun)
