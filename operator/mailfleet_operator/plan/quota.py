"""A quota that is used up is waited out: the limiter gives no permits until there is room, and nobody is charged.

What was sent within a rolling window comes free in steps of five minutes, perhaps a few mails at a time, and a relay's
own quota is tried with one mail. So that a campaign does not go to and fro, it waits until much is free, or until the
room has lasted for longer than a step; what is free meanwhile is sent all the same.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mailfleet_operator.conditions import Type, false, time_text, true
from mailfleet_sender.contract.accounts import RunState
from mailfleet_sender.contract.relay import QuotaWindow

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation
    from mailfleet_sender.contract.relay import Quota

REASON = "WaitingForQuota"
MUCH_PERCENT = 10
"""Of the quota: that much comes free ten times in a window at most."""
LASTS = timedelta(minutes=6)
"""Room that lasts for longer than one step of five minutes comes free as fast as it is used."""


def policy(o: Observation) -> Step | None:
    """Say it, and until when."""
    if not (o.ledger and o.ledger.run) or o.ledger.run.state is not RunState.OPEN or o.held:
        return None
    if not waits(o) or not o.ledger.at_work:
        return None
    message = _words(o, o.relay.relay.limits.quota if o.relay and o.relay.relay else None)
    return Step(conditions=(false(Type.SENDING, REASON, message), true(Type.THROTTLED, REASON, message)))


def waits(o: Observation) -> bool:
    """Whether the quota is what holds the campaign back: it is used up, or what is free of it will not last."""
    if o.quota_room_at:
        return True
    before = o.campaign.status.condition(Type.SENDING)
    if before is None or before.reason != REASON or o.quota_short_at is None or _is_much(o):
        return False
    return timedelta(0) <= o.now - o.quota_short_at < LASTS


def _is_much(o: Observation) -> bool:
    quota = o.relay.relay.limits.quota if o.relay and o.relay.relay else None
    return bool(quota and o.quota_left is not None and 100 * o.quota_left >= MUCH_PERCENT * quota.messages)


def _words(o: Observation, quota: Quota | None) -> str:
    if quota:
        window = "24 hours" if quota.window is QuotaWindow.ROLLING_24H else "a day"
        whose = f"the relay's quota of {quota.messages} messages in {window}"
        if not o.quota_room_at:
            return f"{whose} comes free in steps: what is free is sent at once, little by little"
    elif o.quota_room_at:
        whose = "the relay says that its quota"
    else:
        return "the relay said that its quota is used up; it takes mail again, and what it takes is sent"
    return f"{whose} is used up: sending goes on at {time_text(o.quota_room_at)}"
