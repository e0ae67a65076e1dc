"""A run is (namespace, name, runId). The same three find the same run in the ledger, whatever was deleted
and applied again; with another definition they are refused, for "send it again" must be said by a new runId.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.actions import AmendRun, EditRun, EnsureRun
from mailfleet_operator.conditions import Type, false, true
from mailfleet_operator.observation import PLANNER
from mailfleet_sender.contract.accounts import RunState

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.actions import Action
    from mailfleet_operator.observation import Observation, RunView


def policy(o: Observation) -> Step | None:
    """Make the run, plan an edited one anew, or refuse a reused runId."""
    definition, spec = o.campaign.definition, o.campaign.spec
    if o.ledger is None or definition is None or spec is None:
        return None
    if (run := o.ledger.run) is None:
        return _prepare(EnsureRun())
    edited = run.definition_hash != definition.definition_hash()
    if edited and run.started:
        return _reused(spec.run_id)
    if edited or _planned_from_elsewhere(o, run):
        return _prepare(EditRun(run.id))
    return Step((AmendRun(run.id),)) if not run.snapshot_current and not run.ended else None


def _prepare(action: Action) -> Step:
    return Step((action,), (false(Type.PLANNED, "Planning", "the run is being prepared"),), last=True)


def _reused(run_id: str) -> Step:
    message = (
        f"runId {run_id} was used for another audience, message or canary and that run has started."
        " Set a new spec.runId to send this one, or restore the old definition"
    )
    conditions = (false(Type.PLANNED, "RunIdReused", message), true(Type.STALLED, "RunIdReused", message))
    return Step(conditions=conditions, last=True)


def _planned_from_elsewhere(o: Observation, run: RunView) -> bool:
    """The plan Job that is done read another database than the spec names now."""
    done = [j for j in o.own_jobs if j.component == PLANNER and j.run == run.id and j.complete and not j.deleting]
    return run.state is RunState.PLANNED and bool(done) and all(j.made_for != o.made_for_plan for j in done)
