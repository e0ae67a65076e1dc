"""A run that the brake or the relay has paused goes on when a person writes `spec.resumeTime`.

It is a time, not a switch: it ends the pauses that happened until then. So the same manifest applied once more ends no
later pause, and it means the same in Git as by kubectl. What is said here is what the ledger keeps: a pause shows once
it is written down.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mailfleet_operator.actions import ResumeRun
from mailfleet_operator.conditions import MESSAGE_BYTES, Condition, Type, clip, false, time_text, true
from mailfleet_sender.contract.accounts import PauseReason, RunState

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation, Pause

REMEDIES = {
    PauseReason.BRAKE_APPLIED: "Mend the cause",
    PauseReason.SENDER_FAULT: "Mend the sender or the relay's credentials",
}


def policy(o: Observation) -> Step | None:
    """Say why it is paused, and go on when that is mended."""
    run, relay = (o.ledger.run if o.ledger else None), (o.relay.relay if o.relay else None)
    if run is None or run.state is not RunState.OPEN or run.pause is None:
        return None
    resume = o.campaign.spec.resume_time if o.campaign.spec else None
    ends = resume is not None and run.pause.at <= resume <= o.now and relay is not None
    actions = (ResumeRun(run.id, relay.account, resume),) if ends and relay and resume else ()
    return Step(actions, conditions(run.pause))


def conditions(pause: Pause) -> tuple[Condition, ...]:
    """Cause and remedy, with the time to write."""
    remedy = f". {REMEDIES[pause.reason]}, then set spec.resumeTime to {time_text(earliest(pause.at))} or later"
    message = clip(pause.message, MESSAGE_BYTES - len(remedy)) + remedy
    return true(Type.SUSPENDED, str(pause.reason), message), false(Type.SENDING, "Suspended", message)


def earliest(at: datetime) -> datetime:
    """The first whole second that ends a pause: times in manifests have no fractions."""
    whole = at.astimezone(UTC).replace(microsecond=0)
    return whole if whole == at else whole + timedelta(seconds=1)
