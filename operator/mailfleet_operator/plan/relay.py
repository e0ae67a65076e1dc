"""A campaign needs its relay: without it nothing is planned, and no Job is made. Whether the relay is Ready is advice:
a campaign says it before it starts, and starts all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailfleet_operator.conditions import Type, false, true

from .step import Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mailfleet_operator.observation import Observation


def policy(o: Observation) -> Step | None:
    """Before the start: wait for it. Afterwards running senders go on with what the ledger knows of it."""
    spec, ledger = o.campaign.spec, o.ledger
    if spec is None or ledger is None or (o.relay and o.relay.relay):
        return None
    if o.relay is None:
        reason = "RelayNotFound"
        message = f"there is no EmailRelay {spec.relay_ref.name} in this namespace: create it, or mend spec.relayRef"
    else:
        reason, message = "RelayInvalid", f"EmailRelay {spec.relay_ref.name} cannot be read: {o.relay.invalid}"
    started = ledger.run is not None and ledger.run.started
    if started:
        return Step(conditions=(true(Type.STALLED, reason, message),))
    return Step(conditions=(false(Type.PLANNED, reason, message), true(Type.STALLED, reason, message)), last=True)


def doubts(o: Observation) -> str:
    """What a preflight found wrong with the relay, for the end of a message."""
    conditions = (o.relay.status.get("conditions") or ()) if o.relay else ()
    ready: Mapping[str, Any] = next((c for c in conditions if c.get("type") == "Ready"), {})
    if ready.get("status") != "False":
        return ""
    return f"; its relay is not ready ({ready.get('reason')}): {ready.get('message')}"
