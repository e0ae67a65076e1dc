"""Ranges that nobody owns are settled while no sender is there to do it.

A sender that takes a range over accounts for what its dead predecessor left open. A suspended run has no
such successor: without this the uncertain would count as remaining for as long as the pause lasts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.actions import SettleRanges
from mailfleet_operator.observation import SENDER

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation


def policy(o: Observation) -> Step | None:
    """Settle when no sender lives."""
    if not (o.ledger and o.ledger.run and o.ledger.orphans):
        return None
    if any(p.component == SENDER for p in o.living_pods):
        return None
    return Step((SettleRanges(o.ledger.run.id),))
