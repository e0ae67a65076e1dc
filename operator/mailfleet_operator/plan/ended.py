"""A run that is over stays over: it sends nothing, whatever is deleted and applied again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.actions import AbsorbLate, DeleteJob, ForgetInLimiter
from mailfleet_operator.conditions import Type, false, true
from mailfleet_sender.contract.accounts import EndReason, RunState

from . import planning, retry_failed
from .step import Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mailfleet_operator.observation import Observation

ENDINGS: Mapping[str, str] = {
    RunState.CANCELLED: "the run was cancelled",
    RunState.FAILED: "the run failed",
    RunState.SUPERSEDED: "another runId superseded this run",
    EndReason.END_TIME_REACHED: "schedule.endTime passed before all were mailed",
    EndReason.STARTING_DEADLINE_EXCEEDED: "it could not start within schedule.startingDeadlineSeconds",
}


def policy(o: Observation) -> Step | None:
    """Report the end, take in late outcomes, and free what is left."""
    if not (o.ledger and o.ledger.run and o.ledger.run.ended):
        return None
    run, t = o.ledger.run, o.ledger.totals
    planned = true(Type.PLANNED, "Planned", planning.counted(o))
    if run.state is RunState.COMPLETE:
        message = f"all {t.planned} accounted for: {t.sent} sent, {t.skipped} skipped, {t.failed} failed"
        if retry_failed.is_asked_for(o) and (why := retry_failed.waits_for(o)):
            message += f". retryFailed waits: {why}"
        if nobody := retry_failed.came_to_nobody(o):
            message += f". {nobody}"
        end = true(Type.COMPLETE, "Complete", message)
    else:
        why = run.end_reason or str(run.state)
        message = (
            f"{ENDINGS.get(why, ENDINGS[run.state])}: {t.sent} sent, {t.cancelled} not sent (cancelled)."
            " Set a new spec.runId to send again, to everybody"
        )
        end = true(Type.FAILED, why, message)
    left = tuple(
        DeleteJob(j.name, j.uid, "its run is over")
        for j in o.own_jobs
        if j.run == run.id and not j.over and not j.deleting and (j.suspended or run.state is not RunState.COMPLETE)
    )
    relay = o.relay.relay if o.relay else None
    forget = (ForgetInLimiter(relay.account),) if relay else ()
    late = (AbsorbLate(run.id),) if o.ledger.late else ()
    sending = false(Type.SENDING, "Ended", "the run is over")
    return Step((*left, *late, *forget), (planned, end, sending), last=True)
