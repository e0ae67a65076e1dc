"""Without the ledger nothing is decided: senders wait by themselves and go on by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.conditions import Type, true

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation


def policy(o: Observation) -> Step | None:
    """Say it, keep what was known about the plan and the end, and stop."""
    if o.ledger is not None:
        return None
    known = tuple(
        c for t in (Type.PLANNED, Type.SUSPENDED, Type.COMPLETE, Type.FAILED) if (c := o.campaign.status.condition(t))
    )
    if any(c.status for c in known if c.type in {Type.COMPLETE, Type.FAILED}):
        return Step(conditions=known, last=True)
    message = f"the operator cannot reach the ledger: {o.ledger_trouble}. Sending goes on when it is back"
    return Step(conditions=(true(Type.STALLED, "LedgerUnavailable", message), *known), last=True)
