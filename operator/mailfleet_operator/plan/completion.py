"""Complete is what the ledger says, never what Jobs say: every range of every wave ended, nothing remaining,
nothing deferred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.actions import CompleteRun
from mailfleet_operator.conditions import Type, false

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation


def policy(o: Observation) -> Step | None:
    """Close the run when nothing is owed; the ledger checks again, in the transaction that closes it."""
    if not (o.ledger and o.ledger.run and o.owes_nothing):
        return None
    completing = false(Type.SENDING, "Completing", "every range has ended; the run is being closed")
    return Step((CompleteRun(o.ledger.run.id),), (completing,))
