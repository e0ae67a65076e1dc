"""How a run is ended before everybody was mailed: the senders finish what is in flight and give the rest back, the
limiter gives no more permits, and the ledger closes range after range; what was not sent counts as cancelled.

A sender on a lost node may live on and renew its lease for as long as it reaches the database, and nobody can tell it
to drain. So once Kubernetes has no sender's pod any more and a minute has passed, leases are not waited out.

The end is recorded in the ledger, so it stays an end whatever is deleted and applied again.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mailfleet_operator.actions import CloseRun, DeleteJob, SuspendJob, TellLimiter
from mailfleet_operator.conditions import Type, false, true
from mailfleet_operator.observation import SENDER
from mailfleet_sender.contract.accounts import RunState

from . import planning
from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.actions import Action
    from mailfleet_operator.conditions import Condition
    from mailfleet_operator.observation import Observation
    from mailfleet_sender.contract.accounts import EndReason

DRAINING = frozenset({"Cancelling", "Ending"})
"""Reasons of Sending while a run is being closed."""
FENCE_AFTER = timedelta(seconds=60)
"""Four leases: whoever was killed has none by then."""


def close(o: Observation, run: int, into: RunState, reason: EndReason | None, *, because: str) -> Step:
    """Do it, as far as it can be done now; the next tick goes on."""
    doing = "Cancelling" if into is RunState.CANCELLED else "Ending"
    jobs = [j for j in o.own_jobs if j.run == run and not j.over and not j.deleting]
    actions: list[Action] = [
        SuspendJob(j.name, j.uid, suspend=True) for j in jobs if j.component == SENDER and not j.suspended
    ]
    actions += [DeleteJob(j.name, j.uid, because) for j in jobs if j.component != SENDER]
    if o.relay and o.relay.relay and o.campaign.spec:
        actions.append(TellLimiter(o.relay.relay.account, o.campaign.spec.weight, paused=True))
    planned = o.campaign.status.condition(Type.PLANNED)
    if o.ledger and o.ledger.totals.planned:
        planned = true(Type.PLANNED, "Planned", planning.counted(o))
    message = f"{because}: what is in flight is being accounted for, the rest will count as cancelled"
    conditions = (false(Type.SENDING, doing, message), *((planned,) if planned else ()), *_orphaned(o))
    return Step((*actions, CloseRun(run, into, reason, unreachable(o, Type.SENDING, DRAINING))), conditions, last=True)


def unreachable(o: Observation, type_: Type, reasons: frozenset[str]) -> bool:
    """Whether nobody is left who could be drained.

    Args:
        type_: the condition that says that a run is being closed. Its time is that of its status: since when the run
            has not been sending.
        reasons: with which it says so.
    """
    closing = o.campaign.status.condition(type_)
    if closing is None or closing.reason not in reasons or closing.since is None:
        return False
    return o.now - closing.since > FENCE_AFTER and not any(p.component == SENDER for p in o.living_pods)


def _orphaned(o: Observation) -> tuple[Condition, ...]:
    """Senders whose Job was deleted without them hold their ranges for ever; the operator may not delete pods."""
    jobs = {j.uid for j in o.jobs}
    found = [
        p.name for p in o.living_pods if p.component == SENDER and p.job_uid not in jobs and not p.deletion_deadline
    ]
    if not found:
        return ()
    message = f"{len(found)} sender pods belong to no Job, so nobody ends them: delete {', '.join(found)}"
    return (true(Type.STALLED, "PodsOrphaned", message),)
