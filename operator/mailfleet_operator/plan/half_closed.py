"""A run whose closing has begun is closed, whatever the spec says by now: some of its recipients count as cancelled
already, so it can neither go on nor be complete. So a campaign that is deleted while it is cancelled, and applied again
without `cancel`, stays cancelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_sender.contract.accounts import RunState

from .closing import close

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation

    from .step import Step


def policy(o: Observation) -> Step | None:
    """Close an open run that has cancelled recipients."""
    if not (o.ledger and o.ledger.run) or o.ledger.run.state is not RunState.OPEN or not o.ledger.totals.cancelled:
        return None
    because = f"it was being ended, {o.ledger.totals.cancelled} recipients count as cancelled already"
    return close(o, o.ledger.run.id, RunState.CANCELLED, None, because=because)
