"""`spec.brake`: the limiter counts what the relay says and stops a campaign by itself, the operator down or not.

The operator keeps it in the ledger, so that an emptied Redis does not let it go, and suspends the Jobs. `pause` says
how it goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.actions import PauseRun, ReleaseBrake
from mailfleet_sender.contract.accounts import PauseReason, RunState

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import BrakeView, Observation

FAULTS, FAULT_PERCENT = 20, 20
"""As in reserve.lua: so many mails, and more than this share, were refused for the sender's sake."""


def policy(o: Observation) -> Step | None:
    """Write down that it has closed, once each time."""
    run, relay = (o.ledger.run if o.ledger else None), (o.relay.relay if o.relay else None)
    if not (run and relay and o.brake) or run.state is not RunState.OPEN or run.pause or o.owes_nothing:
        return None
    if o.brake.since == run.paused_at or (run.started_at and o.brake.since < run.started_at):
        # It was released, or it is of an older run: Redis was away when it should have been told, or came back with it.
        return Step((ReleaseBrake(relay.account),))
    reason, message = cause(o, o.brake)
    return Step((PauseRun(run.id, reason, message, o.brake.since),))


def cause(o: Observation, brake: BrakeView) -> tuple[PauseReason, str]:
    """Why it has closed, with figures."""
    if brake.faults >= FAULTS and brake.faults * 100 > FAULT_PERCENT * brake.all:
        figures = f"{brake.faults} of the last {brake.all} mails"
        return PauseReason.SENDER_FAULT, f"the relay refused {figures} for what they are or who sends them (5.7.x)"
    share = f"{brake.bad * 100 / brake.all:.3g} %" if brake.all else "too many"
    spec = o.campaign.spec.brake if o.campaign.spec else None
    bound = f"; brake.maxFailedPercent is {spec.max_failed_percent}" if spec else ""
    return PauseReason.BRAKE_APPLIED, f"{brake.bad} of the last {brake.all} mails failed ({share}{bound})"
