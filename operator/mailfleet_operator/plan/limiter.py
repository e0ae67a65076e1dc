"""The limiter hears each campaign's weight, whether it is paused, when it may send and its brake, so all of that holds
while the operator is down; a condition tells when it holds mail back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.actions import TellLimiter
from mailfleet_operator.conditions import Condition, Type, true
from mailfleet_sender.contract.accounts import ReportReason, RunState

from . import hours
from .step import Step
from .trouble import living_reports

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation


AT_THE_LIMIT, BELOW_IT = 0.95, 0.85
"""Shares of the relay's limit at which the word of it comes and goes: far apart, so that it does not flicker."""


def policy(o: Observation) -> Step | None:
    """Tell it, and say what it does."""
    spec, relay = o.campaign.spec, o.relay.relay if o.relay else None
    if not (o.ledger and o.ledger.run and spec and relay) or o.ledger.run.state is not RunState.OPEN:
        return None
    until, again = hours.ahead(o)
    paused = o.suspended or o.paused  # also what the brake made: Redis may have lost it
    tell = TellLimiter(relay.account, spec.weight, paused=paused, open_until=until, reopens=again, brake=spec.brake)
    return Step((tell,), _throttled(o))


def _throttled(o: Observation) -> tuple[Condition, ...]:
    reports = {r.reason: r.message for r in living_reports(o)}
    if o.limiter_trouble or ReportReason.LIMITER_UNAVAILABLE in reports:
        detail = o.limiter_trouble or reports[ReportReason.LIMITER_UNAVAILABLE]
        message = f"without the limiter nothing is sent: {detail}. Sending goes on when it is back"
        return (true(Type.THROTTLED, "LimiterUnavailable", message),)
    if ReportReason.RELAY_THROTTLING in reports:
        return (true(Type.THROTTLED, "RelayThrottling", reports[ReportReason.RELAY_THROTTLING]),)
    before = o.campaign.status.condition(Type.THROTTLED)
    share = BELOW_IT if before and before.status and before.reason == "RateLimit" else AT_THE_LIMIT
    if o.limit and o.account_rate >= share * o.limit and not o.held:
        relay = o.relay.relay if o.relay else None
        limit = relay.limits.rate if relay else ""
        return (true(Type.THROTTLED, "RateLimit", f"the relay's limit of {limit} sets the pace"),)
    return ()
