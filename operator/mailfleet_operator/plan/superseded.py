"""An older open run of the same campaign is closed before another begins: nobody may be mailed by both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.actions import DeleteJob, SupersedeRun
from mailfleet_operator.conditions import Type, false

from .closing import unreachable
from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation


def policy(o: Observation) -> Step | None:
    """Delete the older run's Jobs, close it, and wait until it is closed."""
    if not (o.ledger and o.ledger.older):
        return None
    older = {r.id for r in o.ledger.older}
    jobs = tuple(
        DeleteJob(j.name, j.uid, "another runId supersedes its run")
        for j in o.jobs
        if j.run in older and not j.deleting
    )
    fence = unreachable(o, Type.PLANNED, frozenset({"SupersedingRun"}))
    names = ", ".join(r.run_id for r in o.ledger.older)
    message = f"waiting until run {names} is closed; what it has not sent counts there as cancelled"
    return Step(
        (*jobs, *(SupersedeRun(r.id, fence) for r in o.ledger.older)),
        (false(Type.PLANNED, "SupersedingRun", message),),
        last=True,
    )
