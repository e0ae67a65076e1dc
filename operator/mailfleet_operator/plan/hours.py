"""`schedule.windows`: outside them nothing is sent. Jobs are suspended, so the cluster is free at night; the limiter
knows the openings of the days to come, so they hold while the operator is down.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mailfleet_operator import windows
from mailfleet_operator.conditions import Condition, Type, false, time_text
from mailfleet_sender.contract.accounts import RunState

from .step import Step

if TYPE_CHECKING:
    from datetime import datetime

    from mailfleet_operator.observation import Observation

LATEST = timedelta(seconds=2)
"""As LATEST in reserve.lua: a permit is used within this time, so none is given in the last of an opening."""
MOST = 16
"""Openings that the limiter is told ahead: it reads them at each request."""


def policy(o: Observation) -> Step | None:
    """Say what an open run waits for. Its Jobs are seen to by `suspension`."""
    if not (o.ledger and o.ledger.run) or o.ledger.run.state is not RunState.OPEN or o.suspended or o.opening:
        return None
    return Step(conditions=(waiting(o),))


def waiting(o: Observation) -> Condition:
    """That the windows are closed, and until when."""
    spec = o.campaign.spec
    opens = windows.next_start(spec.schedule, o.now) if spec else None
    until = f"they open at {time_text(opens)}" if opens else "they do not open before schedule.endTime"
    return false(Type.SENDING, "WaitingForWindow", f"schedule.windows are closed: {until}")


def ahead(o: Observation) -> tuple[datetime | None, tuple[tuple[datetime, datetime], ...]]:
    """When the limiter closes (None: never), and when it opens and closes again after that."""
    if o.campaign.spec is None:
        return None, ()
    coming = windows.openings(o.campaign.spec.schedule, o.now)[:MOST]
    until: datetime | None = windows.BEGINNING
    if coming and coming[0].holds(o.now):
        until = coming[0].end - LATEST if coming[0].end else None
        coming = coming[1:]
    again = [(c.start, c.end - LATEST) for c in coming if c.end]
    return until, tuple((start, end) for start, end in again if start < end)
