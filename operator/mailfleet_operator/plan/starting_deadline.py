"""`schedule.startingDeadlineSeconds`: a run that could not start in time is ended, not sent late.

It guards against a cluster that is made anew from Git months later. While the campaign is suspended nothing is
decided: a person holds it, and may still change the schedule.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mailfleet_operator import windows
from mailfleet_operator.conditions import time_text
from mailfleet_sender.contract.accounts import EndReason, RunState

from .closing import close

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation

    from .step import Step


def policy(o: Observation) -> Step | None:
    """Close a run that has not started by its deadline."""
    if not (o.ledger and o.ledger.run and o.campaign.spec) or o.ledger.run.started or o.suspended:
        return None
    schedule, status = o.campaign.spec.schedule, o.campaign.status
    if schedule.start_time is None or schedule.starting_deadline_seconds is None:
        return None
    if status.start_time and status.run_id == o.campaign.spec.run_id:
        return None  # the start was recorded in time: the ledger's comes next
    due = windows.next_start(schedule, schedule.start_time) or schedule.start_time
    if o.now <= due + timedelta(seconds=schedule.starting_deadline_seconds):
        return None
    because = f"it could not start within {schedule.starting_deadline_seconds} s of {time_text(due)}"
    return close(o, o.ledger.run.id, RunState.FAILED, EndReason.STARTING_DEADLINE_EXCEEDED, because=because)
