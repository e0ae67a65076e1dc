"""Outcomes that a fenced sender left behind after its range had ended are taken in: uncertain becomes sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.actions import AbsorbLate

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation


def policy(o: Observation) -> Step | None:
    """Absorb when there are any."""
    if not (o.ledger and o.ledger.run and o.ledger.late):
        return None
    return Step((AbsorbLate(o.ledger.run.id),))
