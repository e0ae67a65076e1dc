"""A reply that speaks of the sender and not of a recipient (530, 535, 5.1.8, any 5xx to MAIL or AUTH) pauses the
campaign at once: each further mail would get it as well. Nobody is burned, all of them remain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.actions import PauseRun
from mailfleet_sender.contract.accounts import PauseReason, ReportReason, RunState

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation


def policy(o: Observation) -> Step | None:
    """Pause when a sender reports it; what was reported before the last pause ended is mended."""
    run = o.ledger.run if o.ledger else None
    if not (o.ledger and run) or run.state is not RunState.OPEN or run.pause:
        return None
    since = run.resumed_at or run.started_at
    reports = [r for r in o.ledger.reports if r.reason is ReportReason.SENDER_FAULT and (since is None or r.at > since)]
    if not reports:
        return None
    latest = max(reports, key=lambda r: r.at)
    message = f"the relay refuses this sender: {latest.message}"
    return Step((PauseRun(run.id, PauseReason.SENDER_FAULT, message, latest.at),))
