"""An installation may bound the senders of a campaign (chart value maxSenders): one that it holds back says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.conditions import Type, true
from mailfleet_operator.scaling import SATURATED, STARVED
from mailfleet_sender.contract.accounts import RunState

from . import quota
from .senders import working_jobs
from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation

REASON = "SendersLimited"


def policy(o: Observation) -> Step | None:
    """Speak when the fleet is as large as it may be, smaller than its spec allows, and the relay could take more."""
    spec = o.campaign.spec
    if spec is None or not (o.ledger and o.ledger.run) or o.ledger.run.state is not RunState.OPEN:
        return None
    most, size = o.bounds.high, sum(j.parallelism for j in working_jobs(o))
    if most >= spec.senders.max_replicas or size < most or o.held or quota.waits(o) or o.pace.per_second <= 0:
        return None
    before = o.campaign.status.condition(Type.THROTTLED)
    share = SATURATED if before and before.status and before.reason == REASON else STARVED
    if max(o.account_rate, o.pace.per_second) >= share * o.limit:
        return None
    message = (
        f"spec.senders.maxReplicas is {spec.senders.max_replicas}, but this installation allows a campaign {most}"
        f" (maxSenders): raise maxSenders, or set maxReplicas to {most} if that rate will do"
    )
    return Step(conditions=(true(Type.THROTTLED, REASON, message),))
