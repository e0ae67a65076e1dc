"""An installation may ask that each campaign says when it starts, and how late it may still start: without the two an
old campaign in Git is sent once more if cluster and ledger are lost together (chart value requireStartTime).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.conditions import Type, false, true

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation


def policy(o: Observation) -> Step | None:
    """Plan nothing without them. A run that has started goes on."""
    spec, run = o.campaign.spec, o.ledger.run if o.ledger else None
    if not o.require_start_time or spec is None or (run and run.started):
        return None
    fields = {"startTime": spec.schedule.start_time, "startingDeadlineSeconds": spec.schedule.starting_deadline_seconds}
    missing = " and ".join(f"spec.schedule.{name}" for name, value in fields.items() if value is None)
    if not missing:
        return None
    message = f"set {missing}: this installation plans no campaign without (requireStartTime)"
    return Step(
        conditions=(
            false(Type.PLANNED, "StartTimeRequired", message),
            true(Type.STALLED, "StartTimeRequired", message),
        ),
        last=True,
    )
