"""Sending starts when the schedule allows it, in two steps: first the start is written into the status, under the
resourceVersion that was observed, and from then on the API server refuses edits; only then the ledger starts and
fixes the pages. A conflict in the first step means that somebody edited: observe again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator import scaling
from mailfleet_operator.actions import RecordStart, StartRun
from mailfleet_operator.conditions import Type, false, time_text, true
from mailfleet_sender.contract.accounts import RunState

from . import hours
from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation


def policy(o: Observation) -> Step | None:
    """A planned campaign starts unless it is suspended (then the plan is all) or its time has not come."""
    spec = o.campaign.spec
    if not (o.ledger and o.ledger.run and spec) or o.ledger.run.state is not RunState.PLANNED:
        return None
    run, totals = o.ledger.run, o.ledger.totals
    if spec.suspend:
        message = "planned, nothing is sent: set spec.suspend to false to send"
        held = (true(Type.SUSPENDED, "BySpec", message), false(Type.SENDING, "Suspended", message))
        return Step(conditions=held, last=True)
    if spec.schedule.start_time and o.now < spec.schedule.start_time:
        message = f"schedule.startTime is {time_text(spec.schedule.start_time)}"
        return Step(conditions=(false(Type.SENDING, "WaitingForStart", message),), last=True)
    if o.opening is None:
        return Step(conditions=(hours.waiting(o),), last=True)
    status = o.campaign.status
    if status.start_time is None or status.run_id != spec.run_id:
        return Step((RecordStart(o.now),), last=True)
    senders = scaling.first_size(o.limit, o.bounds)
    size = scaling.range_size(
        asked=spec.range_size, planned=totals.planned - totals.skipped, limit=o.limit, senders=senders
    )
    return Step((StartRun(run.id, run.definition_hash, size),), last=True)
