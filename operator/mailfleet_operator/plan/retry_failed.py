"""`spec.retryFailed`: each time its generation is raised, those that failed so are sent to once more, also in a run
that was complete: it is opened again until they are done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator import scaling
from mailfleet_operator.actions import RetryFailed
from mailfleet_operator.conditions import clip
from mailfleet_sender.contract.accounts import RunState, WaveKind

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation


CODES_BYTES = 80
"""Of the codes so many are told."""


def policy(o: Observation) -> Step | None:
    """Make the wave of a generation that was not done; the ledger does each one once."""
    spec = o.campaign.spec
    if not (o.ledger and spec and spec.retry_failed and is_asked_for(o)) or waits_for(o):
        return None
    run = o.ledger.run
    if not run or any(w.open and w.kind is WaveKind.RETRY for w in o.ledger.waves):
        return None
    size = scaling.range_size(
        asked=spec.range_size,
        planned=o.ledger.totals.failed + o.ledger.totals.uncertain,
        limit=o.limit,
        senders=scaling.first_size(o.limit, o.bounds),
    )
    return Step((RetryFailed(run.id, spec.retry_failed.generation, spec.retry_failed.codes, size),))


def is_asked_for(o: Observation) -> bool:
    """Whether the spec's generation is not done yet, and the run is one that can be retried."""
    run, spec = o.ledger.run if o.ledger else None, o.campaign.spec
    if not run or not spec or spec.retry_failed is None or run.state not in {RunState.OPEN, RunState.COMPLETE}:
        return False
    return run.retry_generation < spec.retry_failed.generation


def came_to_nobody(o: Observation) -> str | None:
    """In words, if nobody had failed so when the spec's generation was done."""
    run, spec = o.ledger.run if o.ledger else None, o.campaign.spec
    if not (run and spec and spec.retry_failed) or run.retried != 0:
        return None
    if run.retry_generation != spec.retry_failed.generation:
        return None
    codes = ", ".join(spec.retry_failed.codes)
    return f"retryFailed {run.retry_generation} came to nobody: nobody had failed with {clip(codes, CODES_BYTES)}"


def waits_for(o: Observation) -> str | None:
    """What is in the way; None: nothing."""
    spec = o.campaign.spec
    if spec is None or spec.suspend:
        return "spec.suspend is true"
    if o.paused:
        return "the run is paused"
    if spec.cancel:
        return "spec.cancel is true"
    if spec.schedule.end_time and o.now >= spec.schedule.end_time:
        return "schedule.endTime has passed"
    if not (o.relay and o.relay.relay):
        return "its relay is missing"
    return None
