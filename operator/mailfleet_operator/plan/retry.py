"""Deferred recipients whose time has come are sent again, in one Retry wave at a time, beside Main or a
canary step if there are senders to share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator import scaling
from mailfleet_operator.actions import MakeRetryWave
from mailfleet_sender.contract.accounts import RunState, WaveKind

from . import canary
from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation

BESIDE = frozenset({WaveKind.MAIN, WaveKind.CANARY})
"""Kinds of waves beside which it may run."""


def policy(o: Observation) -> Step | None:
    """Make the wave when something is due."""
    spec = o.campaign.spec
    if o.held or spec is None or not (o.ledger and o.ledger.run) or not o.ledger.due:
        return None
    if o.ledger.run.state is not RunState.OPEN:
        return None
    at_work = o.ledger.at_work
    if canary.is_halted(o):
        return None
    if any(w.kind not in BESIDE for w in at_work) or (at_work and o.bounds.high < 2):
        return None
    senders = max(1, scaling.first_size(o.limit, o.bounds) // (4 if at_work else 1))
    size = scaling.range_size(asked=spec.range_size, planned=o.ledger.due, limit=o.limit, senders=senders)
    return Step((MakeRetryWave(o.ledger.run.id, size),))
