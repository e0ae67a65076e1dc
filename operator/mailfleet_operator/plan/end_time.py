"""`schedule.endTime` ends the run for good, also one that is suspended or was never started.

The limiter knows that time as well and gives no permit beyond it, so it holds while the operator is down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.conditions import time_text
from mailfleet_sender.contract.accounts import EndReason, RunState

from .closing import close

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation

    from .step import Step


def policy(o: Observation) -> Step | None:
    """Close the run once its time has come, unless all are accounted for."""
    if not (o.ledger and o.ledger.run and o.campaign.spec) or o.owes_nothing:
        return None
    end = o.campaign.spec.schedule.end_time
    if end is None or o.now < end:
        return None
    because = f"schedule.endTime {time_text(end)} has passed"
    return close(o, o.ledger.run.id, RunState.FAILED, EndReason.END_TIME_REACHED, because=because)
