"""Policies that hold while a campaign sends: waves, retries, suspension, nodes, the end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from mailfleet_operator import plan
from mailfleet_operator.actions import (
    AbsorbLate,
    CompleteRun,
    CreateWaveJob,
    DeleteJob,
    FailPod,
    ForgetInLimiter,
    MakeRepairWave,
    MakeRetryWave,
    ScaleJob,
    SettleRanges,
    SuspendJob,
    TellLimiter,
)
from mailfleet_operator.conditions import Condition, Type
from mailfleet_operator.observation import NODE_GRACE, Observation, WaveView
from mailfleet_operator.pace import Pace, Sample
from mailfleet_sender.contract.accounts import RunState, Totals, WaveKind
from observations import (
    NOW,
    ago,
    campaign,
    failed,
    ledger,
    main_wave,
    observation,
    pod,
    relay,
    run,
    send_job,
    started,
)

TOLD = TellLimiter("marketing/ses", 100, paused=False)


def done(o: Observation, *kinds: type) -> list[object]:
    """The actions of these kinds."""
    return [a for a in plan.plan(o).actions if isinstance(a, kinds)]


def said(o: Observation, type_: Type) -> Condition | None:
    return next((c for c in plan.plan(o).conditions if c.type is type_), None)


def moving(per_second: float) -> Pace:
    return Pace((Sample(ago(10), 0), Sample(NOW, int(per_second * 10))), 0, 0, NOW)


class TestWaves:
    def test_a_wave_without_a_job_gets_one(self) -> None:
        o = observation(jobs=(), pods=())
        assert done(o, CreateWaveJob) == [CreateWaveJob(5, 1, 4, 2, suspended=False)]

    def test_a_wave_with_its_job_at_work_is_left_alone(self) -> None:
        assert plan.plan(observation()).actions == (TOLD,) or not done(observation(), CreateWaveJob, MakeRepairWave)

    def test_a_job_of_our_name_that_is_going_is_waited_out(self) -> None:
        o = observation(jobs=(send_job(deleting=True),))
        assert not done(o, CreateWaveJob, MakeRepairWave, DeleteJob)

    def test_a_job_of_our_name_with_another_owner_is_never_adopted(self) -> None:
        o = observation(jobs=(send_job(owner_uid="deleted"),))
        assert not done(o, CreateWaveJob, MakeRepairWave, DeleteJob, ScaleJob, SuspendJob)

    def test_what_an_ended_job_left_open_moves_into_a_repair_wave(self) -> None:
        over = failed(send_job(), 1)
        o = observation(jobs=(over,), ledger=ledger(waves=(main_wave(finished=2, open=2),)))
        assert done(o, MakeRepairWave) == [MakeRepairWave(5, 1)]

    def test_what_a_vanished_job_left_open_moves_into_a_repair_wave(self) -> None:
        o = observation(jobs=(), ledger=ledger(waves=(main_wave(finished=1, open=3),)))
        assert done(o, MakeRepairWave, CreateWaveJob) == [MakeRepairWave(5, 1)]

    def test_a_vanished_job_of_which_nothing_was_done_is_made_again(self) -> None:
        o = observation(jobs=())
        assert not done(o, MakeRepairWave)
        assert done(o, CreateWaveJob)

    def test_repairs_that_finish_nothing_come_later_and_later(self) -> None:
        repair = WaveView(2, WaveKind.REPAIR, ranges=4, finished=0, open=4)
        waves = (main_wave(ranges=4, open=0), repair)
        job = send_job(2)
        soon = observation(jobs=(failed(job, 29),), ledger=ledger(waves=waves))
        later = observation(jobs=(failed(job, 30),), ledger=ledger(waves=waves))
        assert not done(soon, MakeRepairWave)
        assert done(later, MakeRepairWave) == [MakeRepairWave(5, 2)]

    def test_changed_secrets_replace_the_job(self) -> None:
        job = send_job(made_for="other secrets")
        (action,) = done(observation(jobs=(job,)), DeleteJob)
        assert isinstance(action, DeleteJob)
        assert action.uid == job.uid

    def test_a_suspended_run_gets_no_new_job(self) -> None:
        o = observation(campaign=campaign(started(), suspend=True), jobs=(), pods=())
        assert not done(o, CreateWaveJob, MakeRepairWave)

    def test_a_relay_that_was_deleted_stops_no_sender_but_gets_no_new_job(self) -> None:
        assert not done(observation(relay=None, jobs=()), CreateWaveJob)
        condition = said(observation(relay=None), Type.STALLED)
        assert condition
        assert condition.reason == "RelayNotFound"


class TestRetry:
    WAITING = Totals(planned=10, sent=8, deferred=2)

    def test_due_recipients_get_a_wave(self) -> None:
        view = ledger(totals=self.WAITING, waves=(main_wave(open=0, finished=4),), due=2)
        assert done(observation(ledger=view), MakeRetryWave)

    def test_what_is_not_due_waits_and_says_until_when(self) -> None:
        until = NOW + timedelta(seconds=600)
        view = ledger(totals=self.WAITING, waves=(main_wave(open=0, finished=4),), next_due=until)
        o = observation(ledger=view)
        assert not done(o, MakeRetryWave, CompleteRun)
        condition = said(o, Type.SENDING)
        assert condition
        assert (condition.reason, condition.status) == ("WaitingForRetry", False)
        assert "2026-12-01T08:10:00Z" in condition.message

    def test_it_runs_beside_main(self) -> None:
        assert done(observation(ledger=ledger(due=2)), MakeRetryWave)

    def test_one_at_a_time(self) -> None:
        retry = WaveView(2, WaveKind.RETRY, ranges=1, finished=0, open=1)
        assert not done(observation(ledger=ledger(due=2, waves=(main_wave(), retry))), MakeRetryWave)

    def test_with_one_sender_it_waits_for_main(self) -> None:
        o = observation(campaign=campaign(started(), senders={"maxReplicas": 1}), ledger=ledger(due=2))
        assert not done(o, MakeRetryWave)

    RETRY = WaveView(2, WaveKind.RETRY, ranges=9, finished=0, open=9)
    BOTH = ledger(waves=(main_wave(ranges=20, open=20), RETRY))

    def test_beside_main_it_gets_a_quarter_on_top(self) -> None:
        o = observation(ledger=self.BOTH, jobs=(send_job(parallelism=8),))
        assert done(o, CreateWaveJob) == [CreateWaveJob(5, 2, 9, 2, suspended=False)]
        assert not done(o, ScaleJob)

    def test_where_there_is_no_room_main_gives_it_up(self) -> None:
        o = observation(
            campaign=campaign(started(), senders={"maxReplicas": 8}),
            ledger=self.BOTH,
            jobs=(send_job(parallelism=8), send_job(2, parallelism=2)),
        )
        assert done(o, ScaleJob) == [ScaleJob(send_job().name, "j-1", 6)]

    def test_alone_it_has_all_senders(self) -> None:
        o = observation(ledger=ledger(waves=(main_wave(open=0, finished=4), self.RETRY)), jobs=())
        assert done(o, CreateWaveJob) == [CreateWaveJob(5, 2, 9, 2, suspended=False)]

    def test_a_suspended_run_makes_no_retry_wave(self) -> None:
        o = observation(campaign=campaign(started(), suspend=True), ledger=ledger(due=2))
        assert not done(o, MakeRetryWave)


class TestSuspension:
    def test_suspending_suspends_the_jobs_and_tells_the_limiter(self) -> None:
        o = observation(campaign=campaign(started(), suspend=True))
        job = send_job()
        assert done(o, SuspendJob) == [SuspendJob(job.name, job.uid, suspend=True)]
        assert done(o, TellLimiter) == [replace(TOLD, paused=True)]
        condition = said(o, Type.SUSPENDED)
        assert condition
        assert condition.reason == "BySpec"

    def test_resuming_resumes_the_jobs(self) -> None:
        o = observation(jobs=(send_job(suspended=True),))
        job = send_job()
        assert done(o, SuspendJob) == [SuspendJob(job.name, job.uid, suspend=False)]

    def test_nothing_is_said_twice(self) -> None:
        o = observation(campaign=campaign(started(), suspend=True), jobs=(send_job(suspended=True),), pods=())
        assert not done(o, SuspendJob)

    def test_what_the_dead_left_open_is_settled(self) -> None:
        o = observation(
            campaign=campaign(started(), suspend=True),
            jobs=(send_job(suspended=True),),
            pods=(),
            ledger=ledger(orphans=True),
        )
        assert done(o, SettleRanges) == [SettleRanges(5)]

    def test_while_a_sender_lives_it_settles_itself(self) -> None:
        assert not done(observation(ledger=ledger(orphans=True)), SettleRanges)


class TestLostNode:
    LATE = NODE_GRACE.total_seconds() + 1

    def test_a_pod_on_a_lost_node_is_declared_failed(self) -> None:
        job = send_job()
        lost = pod(job, 0, deletion_deadline=ago(self.LATE), node="dead")
        o = observation(pods=(lost,), lost_nodes=frozenset({"dead"}))
        assert done(o, FailPod) == [FailPod(lost.name, lost.uid, "dead")]

    @pytest.mark.parametrize(
        ("seconds", "node", "phase"),
        [(LATE - 2, "dead", "Running"), (LATE, "well", "Running"), (LATE, "dead", "Failed")],
        ids=["within its grace", "the node is well", "it ended by itself"],
    )
    def test_others_are_left_alone(self, seconds: float, node: str, phase: str) -> None:
        one = pod(send_job(), 0, deletion_deadline=ago(seconds), node=node, phase=phase)
        assert not done(observation(pods=(one,), lost_nodes=frozenset({"dead"})), FailPod)

    def test_a_pod_that_nobody_deletes_is_left_alone(self) -> None:
        one = pod(send_job(), 0, node="dead")
        assert not done(observation(pods=(one,), lost_nodes=frozenset({"dead"})), FailPod)

    def test_it_holds_without_the_ledger_too(self) -> None:
        lost = pod(send_job(), 0, deletion_deadline=ago(self.LATE), node="dead")
        o = observation(pods=(lost,), lost_nodes=frozenset({"dead"}), ledger=None)
        assert done(o, FailPod)


class TestTerminatingNamespace:
    def test_its_jobs_go_and_nothing_else_happens(self) -> None:
        o = observation(namespace_terminating=True, jobs=(send_job(), send_job(2, deleting=True)))
        (action,) = plan.plan(o).actions
        assert isinstance(action, DeleteJob)
        assert action.uid == "j-1"


class TestTheEnd:
    DONE = Totals(planned=10, sent=8, skipped=2)

    def test_nothing_owed_completes_the_run(self) -> None:
        view = ledger(totals=self.DONE, waves=(main_wave(open=0, finished=4),))
        assert done(observation(ledger=view), CompleteRun) == [CompleteRun(5)]

    def test_an_audience_of_nobody_is_complete_at_once(self) -> None:
        view = ledger(totals=Totals(planned=2, skipped=2), waves=(main_wave(ranges=0, open=0),))
        o = observation(campaign=campaign(started()), ledger=view, jobs=())
        assert done(o, CompleteRun) == [CompleteRun(5)]

    @pytest.mark.parametrize(
        "left",
        [
            {"totals": Totals(planned=10, sent=8, deferred=2)},
            {"totals": Totals(planned=10, sent=8, remaining=2)},
            {"waves": (main_wave(open=1, finished=3),)},
        ],
        ids=["deferred", "remaining", "an open range"],
    )
    def test_while_something_is_owed_it_is_not(self, left: dict[str, object]) -> None:
        view = replace(ledger(totals=self.DONE, waves=(main_wave(open=0, finished=4),)), **left)
        assert not done(observation(ledger=view), CompleteRun)

    def test_a_job_that_says_complete_decides_nothing(self) -> None:
        o = observation(jobs=(send_job(complete=True, ended_at=ago(1)),))
        assert not done(o, CompleteRun)

    def test_complete_stays_complete_and_makes_no_job(self) -> None:
        view = ledger(RunState.COMPLETE, totals=self.DONE, waves=(main_wave(open=0, finished=4),))
        o = observation(campaign=campaign(), ledger=view, jobs=(), pods=())
        assert plan.plan(o).actions == (ForgetInLimiter("marketing/ses"),)
        condition = said(o, Type.COMPLETE)
        assert condition
        assert condition.status

    def test_late_outcomes_of_a_complete_run_are_taken_in(self) -> None:
        view = ledger(RunState.COMPLETE, totals=self.DONE, late=3)
        assert AbsorbLate(5) in plan.plan(observation(ledger=view)).actions

    def test_late_outcomes_are_taken_in_meanwhile(self) -> None:
        assert AbsorbLate(5) in plan.plan(observation(ledger=ledger(late=3))).actions

    def test_a_superseded_run_is_failed_and_sends_nothing(self) -> None:
        view = ledger(RunState.SUPERSEDED, run=run(RunState.SUPERSEDED))
        o = observation(ledger=view, jobs=())
        assert not done(o, CreateWaveJob)
        condition = said(o, Type.FAILED)
        assert condition
        assert condition.reason == "Superseded"


class TestSending:
    def test_it_says_so(self) -> None:
        condition = said(observation(pace=moving(500)), Type.SENDING)
        assert condition
        assert condition.status

    def test_no_verdict_for_minutes_is_no_progress(self) -> None:
        still = replace(moving(0), moved_at=ago(130))
        condition = said(observation(pace=still), Type.STALLED)
        assert condition
        assert condition.reason == "NoProgress"

    def test_a_slow_relay_is_given_its_time(self) -> None:
        still = replace(moving(0), moved_at=ago(130))
        assert said(observation(pace=still, relay=relay("30/h")), Type.STALLED) is None

    def test_the_full_rate_is_called_the_limit(self) -> None:
        condition = said(observation(pace=moving(990), account_rate=990), Type.THROTTLED)
        assert condition
        assert condition.reason == "RateLimit"

    def test_the_limit_is_not_told_again_with_every_wobble(self) -> None:
        known = {"type": "Throttled", "status": "True", "reason": "RateLimit", "message": "m"}
        view = campaign({**started(), "conditions": [known]})
        wobble = observation(campaign=view, pace=moving(900), account_rate=900)
        condition = said(wobble, Type.THROTTLED)
        assert condition
        assert condition.reason == "RateLimit"
        assert said(replace(wobble, campaign=campaign(started())), Type.THROTTLED) is None

    def test_a_wave_that_waits_for_its_job_is_starting(self) -> None:
        condition = said(observation(jobs=(), pods=()), Type.SENDING)
        assert condition
        assert (condition.status, condition.reason) == (False, "Starting")

    def test_a_limiter_that_is_away_is_named(self) -> None:
        condition = said(observation(limiter_trouble="ConnectionError"), Type.THROTTLED)
        assert condition
        assert condition.reason == "LimiterUnavailable"

    def test_the_weight_is_told(self) -> None:
        o = observation(campaign=campaign(started(), weight=300))
        assert done(o, TellLimiter) == [replace(TOLD, weight=300)]
