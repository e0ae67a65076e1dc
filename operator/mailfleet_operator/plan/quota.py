"""A quota that is used up is waited out: the limiter gives no permits until there is room, and nobody is charged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.conditions import Type, false, time_text, true
from mailfleet_sender.contract.accounts import RunState
from mailfleet_sender.contract.relay import QuotaWindow

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation


def policy(o: Observation) -> Step | None:
    """Say it, and until when."""
    if not (o.ledger and o.ledger.run) or o.ledger.run.state is not RunState.OPEN or o.held:
        return None
    if o.quota_room_at is None or not o.ledger.at_work:
        return None
    quota = o.relay.relay.limits.quota if o.relay and o.relay.relay else None
    if quota:
        window = "24 hours" if quota.window is QuotaWindow.ROLLING_24H else "a day"
        whose = f"the relay's quota of {quota.messages} messages in {window} is used up"
    else:
        whose = "the relay says that its quota is used up"
    message = f"{whose}: sending goes on at {time_text(o.quota_room_at)}"
    return Step(
        conditions=(false(Type.SENDING, "WaitingForQuota", message), true(Type.THROTTLED, "WaitingForQuota", message))
    )
