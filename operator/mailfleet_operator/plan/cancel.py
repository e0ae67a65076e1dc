"""`spec.cancel` ends the run for good, wherever it stands; a run that is complete stays so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_sender.contract.accounts import RunState

from .closing import close

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation

    from .step import Step


def policy(o: Observation) -> Step | None:
    """Close the run, unless nothing is left to cancel."""
    if not (o.ledger and o.ledger.run and o.campaign.spec and o.campaign.spec.cancel) or o.owes_nothing:
        return None
    return close(o, o.ledger.run.id, RunState.CANCELLED, None, because="spec.cancel is true")
