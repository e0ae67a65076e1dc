"""Policies that hold before a campaign sends: identity, relay, planning, start."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailfleet_operator import plan
from mailfleet_operator.actions import (
    AmendRun,
    CreatePlanJob,
    DeleteJob,
    EditRun,
    EnsureRun,
    RecordStart,
    StartRun,
    SupersedeRun,
)
from mailfleet_operator.conditions import Condition, Type, false
from mailfleet_operator.observation import LedgerView, Observation, Status
from mailfleet_sender.contract.accounts import ReportReason, RunState, Totals
from observations import (
    NOW,
    ago,
    campaign,
    failed,
    ledger,
    observation,
    plan_job,
    planned,
    planning,
    pod,
    relay,
    report,
    run,
    started,
)


def said(o: Observation, type_: Type) -> Condition:
    return next(c for c in plan.plan(o).conditions if c.type is type_)


def before(**changes: object) -> Observation:
    """A campaign that was just applied."""
    return replace(observation(campaign=campaign(), ledger=LedgerView(), jobs=(), pods=()), **changes)


class TestIdentity:
    def test_a_new_campaign_gets_a_run(self) -> None:
        assert plan.plan(before()).actions == (EnsureRun(),)

    def test_an_edit_before_the_start_plans_anew(self) -> None:
        view = planned(run=run(RunState.PLANNED, definition_hash="older"))
        assert plan.plan(before(ledger=view)).actions == (EditRun(5),)

    def test_another_database_secret_before_the_start_plans_anew(self) -> None:
        elsewhere = plan_job(complete=True, made_for="another database")
        assert plan.plan(before(ledger=planned(), jobs=(elsewhere,))).actions == (EditRun(5),)

    def test_the_same_database_secret_is_no_edit(self) -> None:
        actions = plan.plan(before(ledger=planned(), jobs=(plan_job(complete=True),))).actions
        assert EditRun(5) not in actions

    @pytest.mark.parametrize("state", [RunState.OPEN, RunState.COMPLETE])
    def test_a_run_id_used_for_another_definition_is_refused_and_nothing_is_done(self, state: RunState) -> None:
        o = before(ledger=ledger(state, run=run(state, definition_hash="older")))
        assert plan.plan(o).actions == ()
        assert said(o, Type.PLANNED).reason == "RunIdReused"
        assert "spec.runId" in said(o, Type.PLANNED).message

    def test_a_campaign_made_anew_goes_on_with_its_open_run(self) -> None:
        o = before(ledger=ledger())
        assert not {EnsureRun(), EditRun(5)} & set(plan.plan(o).actions)

    def test_a_changed_policy_is_written_into_an_open_run(self) -> None:
        o = before(ledger=ledger(run=run(snapshot_current=False)))
        assert AmendRun(5) in plan.plan(o).actions

    def test_an_older_open_run_is_closed_first(self) -> None:
        old = replace(run(), id=4, run_id="0")
        job = plan_job(run=4)
        o = before(ledger=LedgerView(older=(old,)), jobs=(job,))
        actions = plan.plan(o).actions
        assert actions == (
            DeleteJob(job.name, job.uid, "another runId supersedes its run"),
            SupersedeRun(4),
        )

    @pytest.mark.parametrize(("since", "fenced"), [(61, True), (59, False)])
    def test_after_a_minute_without_its_senders_an_older_run_is_not_waited_for(self, since: int, fenced: bool) -> None:
        waiting = replace(false(Type.PLANNED, "SupersedingRun", ""), since=ago(since))
        o = before(
            campaign=campaign({"conditions": [waiting.as_manifest()]}), ledger=LedgerView(older=(run(),)), pods=()
        )
        assert plan.plan(o).actions == (SupersedeRun(5, fence=fenced),)


class TestRelay:
    def test_without_a_relay_nothing_is_planned(self) -> None:
        o = before(relay=None, ledger=planning())
        assert plan.plan(o).actions == ()
        condition = said(o, Type.PLANNED)
        assert (condition.status, condition.reason) == (False, "RelayNotFound")
        assert "EmailRelay ses" in condition.message

    def test_a_relay_that_is_there_is_no_topic(self) -> None:
        assert plan.relay.policy(before(ledger=planning())) is None

    def test_one_that_is_not_ready_is_named_in_the_plan_and_holds_up_nothing(self) -> None:
        ready = {"type": "Ready", "status": "False", "reason": "CredentialsRefused", "message": "535: mend the Secret"}
        doubtful = replace(relay(), status={"conditions": [ready]})
        o = before(ledger=planned(), relay=doubtful)
        assert said(o, Type.PLANNED).status
        assert said(o, Type.PLANNED).message.endswith("not ready (CredentialsRefused): 535: mend the Secret")
        assert plan.plan(o).actions == plan.plan(before(ledger=planned())).actions
        unknown = replace(relay(), status={"conditions": [{**ready, "status": "Unknown"}]})
        assert "not ready" not in said(before(ledger=planned(), relay=unknown), Type.PLANNED).message


class TestPlanning:
    def test_a_run_without_a_plan_gets_a_planner(self) -> None:
        assert plan.plan(before(ledger=planning())).actions == (CreatePlanJob(5, 1),)

    def test_a_planner_at_work_is_left_alone(self) -> None:
        o = before(ledger=planning(), jobs=(plan_job(),))
        assert plan.plan(o).actions == ()
        assert said(o, Type.PLANNED).reason == "Planning"

    def test_an_edit_replaces_the_planner_at_once(self) -> None:
        outdated = plan_job(made_for="older")
        actions = plan.plan(before(ledger=planning(), jobs=(outdated,))).actions
        assert actions == (DeleteJob(outdated.name, outdated.uid, "the campaign was edited"), CreatePlanJob(5, 1))

    def test_a_failed_plan_names_what_the_planner_reported(self) -> None:
        job = failed(plan_job(), 5)
        view = replace(planning(), reports=(report(ReportReason.TABLE_NOT_FOUND, f"{job.name}-x", "no table people"),))
        o = before(ledger=view, jobs=(job,))
        assert said(o, Type.PLANNED).reason == "TableNotFound"
        assert said(o, Type.PLANNED).message == "no table people"
        assert plan.plan(o).actions == ()

    def test_a_report_of_an_earlier_attempt_says_nothing_about_this_one(self) -> None:
        first, second = failed(plan_job(1), 60), failed(plan_job(2), 5)
        view = replace(planning(), reports=(report(ReportReason.TABLE_NOT_FOUND, f"{first.name}-x"),))
        assert said(before(ledger=view, jobs=(first, second)), Type.PLANNED).reason == "PlanFailed"

    def test_a_planner_that_could_not_report_is_quoted_by_its_last_words(self) -> None:
        job = failed(plan_job(), 5)
        dead = pod(job, phase="Failed", exit_code=75, last_words="the ledger is away")
        o = before(ledger=planning(), jobs=(job,), pods=(dead,))
        assert said(o, Type.PLANNED).message == "the ledger is away"

    @pytest.mark.parametrize(("attempt", "delay"), [(1, 15), (2, 30), (3, 60), (4, 120), (9, 120)])
    def test_a_failed_plan_is_tried_again_with_a_growing_delay(self, attempt: int, delay: int) -> None:
        early = before(ledger=planning(), jobs=(failed(plan_job(attempt), delay - 1),))
        late = before(ledger=planning(), jobs=(failed(plan_job(attempt), delay),))
        assert plan.plan(early).actions == ()
        job = plan_job(attempt)
        assert plan.plan(late).actions == (
            CreatePlanJob(5, attempt + 1),
            DeleteJob(job.name, job.uid, "another attempt follows"),
        )

    def test_while_it_is_tried_again_the_reason_stays(self) -> None:
        missing = {"status": "False", "reason": "TableNotFound", "message": "m", "type": "Planned"}
        stalled = {"status": "True", "reason": "TableNotFound", "message": "m", "type": "Stalled"}
        view = replace(campaign(), status=Status({"conditions": [missing, stalled]}))
        o = before(campaign=view, ledger=planning(), jobs=(plan_job(2),))
        assert said(o, Type.PLANNED).reason == "TableNotFound"

    def test_a_job_of_a_deleted_campaign_of_this_name_is_not_adopted(self) -> None:
        foreign = plan_job(owner_uid="another", complete=True)
        assert plan.plan(before(ledger=planning(), jobs=(foreign,))).actions == (CreatePlanJob(5, 1),)


class TestStart:
    def test_suspended_at_creation_stops_after_the_plan(self) -> None:
        o = before(campaign=campaign(suspend=True), ledger=planned())
        assert plan.plan(o).actions == ()
        assert said(o, Type.PLANNED).status
        assert said(o, Type.SUSPENDED).reason == "BySpec"

    def test_the_start_is_recorded_in_the_status_before_the_ledger_starts(self) -> None:
        assert plan.plan(before(ledger=planned())).actions == (RecordStart(NOW),)

    def test_a_status_that_speaks_of_the_run_but_of_no_start_is_not_enough(self) -> None:
        o = before(campaign=campaign({"runId": "1"}), ledger=planned())
        assert plan.plan(o).actions == (RecordStart(NOW),)

    def test_the_ledger_starts_once_the_status_says_so(self) -> None:
        (action,) = plan.plan(before(campaign=campaign(started()), ledger=planned())).actions
        assert isinstance(action, StartRun)
        assert (action.run, action.definition_hash) == (5, run().definition_hash)

    def test_the_start_of_another_run_id_counts_for_nothing(self) -> None:
        o = before(campaign=campaign({**started(), "runId": "0"}), ledger=planned())
        assert plan.plan(o).actions == (RecordStart(NOW),)

    def test_a_range_size_that_is_asked_for_is_taken(self) -> None:
        o = before(campaign=campaign(started(), rangeSize=777), ledger=planned())
        (action,) = plan.plan(o).actions
        assert isinstance(action, StartRun)
        assert action.range_size == 777

    def test_a_resumed_plan_is_not_planned_again(self) -> None:
        o = before(ledger=planned(), jobs=(plan_job(complete=True, ended_at=ago(900)),))
        assert plan.plan(o).actions == (RecordStart(NOW),)


class TestUnreadable:
    def test_a_spec_that_cannot_be_read_says_which_field(self) -> None:
        view = campaign(relayRef="ses")
        o = before(campaign=view)
        assert plan.plan(o).actions == ()
        assert "spec.relayRef" in said(o, Type.PLANNED).message


class TestLedgerAway:
    def test_nothing_is_done_without_the_ledger(self) -> None:
        o = before(ledger=None, ledger_trouble="connection refused", relay=relay())
        assert plan.plan(o).actions == ()
        assert said(o, Type.STALLED).reason == "LedgerUnavailable"
        assert "connection refused" in said(o, Type.STALLED).message

    def test_a_complete_campaign_stays_complete_without_the_ledger(self) -> None:
        done = {"type": "Complete", "status": "True", "reason": "Complete", "message": "m"}
        o = before(campaign=campaign({"conditions": [done]}), ledger=None)
        assert said(o, Type.COMPLETE).status
        assert not [c for c in plan.plan(o).conditions if c.type is Type.STALLED]


class TestRewound:
    def test_a_ledger_that_knows_less_than_was_reported_stops_everything(self) -> None:
        o = before(campaign=campaign(started(sent=500)), ledger=LedgerView())
        assert EnsureRun() not in plan.plan(o).actions
        assert said(o, Type.STALLED).reason == "LedgerRewound"

    def test_a_start_of_which_the_ledger_knows_nothing_stops_everything(self) -> None:
        o = before(campaign=campaign(started()), ledger=LedgerView())
        assert EnsureRun() not in plan.plan(o).actions
        assert said(o, Type.STALLED).reason == "LedgerRewound"

    def test_a_new_run_id_begins_at_zero(self) -> None:
        view = campaign({**started(sent=500), "runId": "0"})
        assert plan.plan(before(campaign=view)).actions == (EnsureRun(),)

    def test_as_many_as_were_reported_is_no_loss(self) -> None:
        o = before(campaign=campaign(started(sent=500)), ledger=ledger(totals=Totals(planned=500, sent=500)))
        assert plan.rewound.policy(o) is None
