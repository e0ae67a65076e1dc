"""`spec.suspend` and closed windows pause a run: Jobs are suspended, so their pods finish what is in flight, give the
rest back and end; the limiter is told as well and gives no permit, which takes effect sooner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.actions import SuspendJob
from mailfleet_operator.conditions import Type, false, true
from mailfleet_operator.observation import SENDER

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation


def policy(o: Observation) -> Step | None:
    """Bring every sender Job to what the spec says."""
    jobs = tuple(
        SuspendJob(j.name, j.uid, suspend=o.held)
        for j in o.own_jobs
        if j.component == SENDER and not j.over and not j.deleting and j.suspended != o.held
    )
    if not o.suspended:
        return Step(jobs) if jobs else None
    message = "spec.suspend is true: set it to false to go on"
    return Step(jobs, (true(Type.SUSPENDED, "BySpec", message), false(Type.SENDING, "Suspended", message)))
