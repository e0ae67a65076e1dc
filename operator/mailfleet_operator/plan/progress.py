"""Whether mail is going out, and if not, what is being waited for."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mailfleet_operator.conditions import Type, false, time_text, true
from mailfleet_sender.contract.accounts import RunState

from . import quota, retry_failed
from .senders import working_jobs
from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation

PATIENCE = timedelta(seconds=120)
"""A pod starts in seconds and a takeover waits a lease of 15: two minutes without a verdict are no waiting."""

WAITING = frozenset({"Suspended", "WaitingForWindow", "WaitingForQuota", "WaitingForApproval", "CanaryPause"})
"""Reasons of Sending, in the look before, from which a run comes back without a verdict for a long time."""


def policy(o: Observation) -> Step | None:
    """Say it for a run that is open."""
    if not (o.ledger and o.ledger.run) or o.ledger.run.state is not RunState.OPEN:
        return None
    open_waves = o.ledger.at_work
    if not open_waves:
        if o.ledger.totals.deferred:
            until = f"; the next are due at {time_text(o.ledger.next_due)}" if o.ledger.next_due else ""
            message = f"deferred recipients wait for another attempt{until}"
            return Step(conditions=(false(Type.SENDING, "WaitingForRetry", message),))
        return None
    if o.held or quota.waits(o):
        return None
    wave = open_waves[0]
    if working_jobs(o):
        nobody = retry_failed.came_to_nobody(o)
        words = f"wave {wave.number} ({wave.kind}) is being sent" + (f"; {nobody}" if nobody else "")
        sending = true(Type.SENDING, "Sending", words)
    else:
        sending = false(Type.SENDING, "Starting", f"wave {wave.number} ({wave.kind}) waits for its Job")
    patience = max(PATIENCE, timedelta(seconds=3 / o.limit if o.limit else 0))
    still = _still(o)
    if still <= patience:
        return Step(conditions=(sending,))
    message = (
        f"no recipient came to a verdict for {int(still.total_seconds() // 60)} min."
        " Look at the Jobs and the log of the sender pods"
    )
    return Step(conditions=(sending, true(Type.STALLED, "NoProgress", message)))


def _still(o: Observation) -> timedelta:
    """Since when nothing moved though it might have: a pause, closed windows and a used up quota do not count."""
    still = o.pace.still_for(o.now)
    if before := o.campaign.status.condition(Type.SENDING):
        if before.reason in WAITING:
            return timedelta(0)
        if before.status and before.since:
            return min(still, o.now - before.since)
    return still
