"""What the status of a campaign should say. Pure; `reconcile` writes it, if it changed.

Its size does not depend on the number of recipients, and stays below 4 KiB.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mailfleet_sender.contract.accounts import RunState, WaveKind

from . import windows
from .conditions import Condition, Type, settle, time_text
from .observation import SENDER
from .plan import cancel, end_time
from .plan.senders import working_jobs
from .plan.waves import job_name
from .words import clipped

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from .observation import LedgerView, Observation
    from .plan import Plan

SAMPLE_BYTES, CODE_BYTES = 120, 64
STATUS_BYTES = 4_096
FITTING = ((256, 256, 120), (256, 128, 120), (256, 64, 60), (160, 48, 0), (64, 32, 0), (32, 0, 0))
"""How many bytes messages of conditions that hold, of those that do not, and samples may have: the first that fits."""
FARTHEST = timedelta(days=3_650)
"""An estimate that is farther away says only that it is not known."""
LASTING = ("runId", "startTime", "completionTime", "progress", "recipients", "ranges", "wave", "failures")
"""What stays true, or was so when it was seen last, while nothing can be read: no rate, no estimate, no pods."""
ETA_STEP = 10
"""Seconds to which an estimate is rounded: it is no more exact, and it need not be rewritten so often."""


def of_campaign(o: Observation, plan: Plan) -> dict[str, Any]:
    """The whole status as it should be now. Without a ledger the figures of the last status stay."""
    conditions = settle(plan.conditions, o.campaign.status.conditions, now=o.now, generation=o.campaign.generation)
    if o.ledger is None or o.campaign.spec is None:
        status = {k: o.campaign.status.raw.get(k) for k in LASTING}
    else:
        status = _figures(o, o.ledger, o.campaign.spec.run_id)
    status["observedGeneration"] = o.campaign.generation
    status["phase"] = phase(o, conditions)
    status["conditions"] = [c.as_manifest() for c in conditions]
    return fitted({k: v for k, v in status.items() if v is not None})


def _figures(o: Observation, ledger: LedgerView, run_id: str) -> dict[str, Any]:
    run, totals, raw = ledger.run, ledger.totals, o.campaign.status.raw
    same_run = o.campaign.status.run_id == run_id
    if run and run.started and _other_definition(o):
        return {"runId": run_id}  # the figures are those of another sending
    if same_run and o.campaign.status.sent > totals.sent:
        # The ledger lost commits. What was reported stays: it is the evidence.
        kept = ("runId", "startTime", "recipients", "progress")
        return {k: v for k in kept if (v := raw.get(k)) is not None}
    kept_start = o.campaign.status.start_time if same_run else None
    status: dict[str, Any] = {
        "runId": run_id,
        "startTime": time_text(kept_start or (run.started_at if run else None)),
    }
    if run and run.state is not RunState.PLANNING:
        done = totals.planned - totals.remaining - totals.deferred
        status["recipients"] = asdict(totals)
        status["progress"] = f"{done}/{totals.planned}"
        status["completionTime"] = time_text(run.ended_at)
        status["retryFailedGeneration"] = run.retry_generation or None
        status["rate"] = {
            "current": rate_text(o.pace.per_second if run.state is RunState.OPEN else 0.0),
            **({"limit": rate_text(o.limit)} if o.limit else {}),
        }
        status["estimatedCompletionTime"] = time_text(eta(o, ledger))
    if run and run.started:
        jobs = working_jobs(o)
        status["senders"] = {
            "desired": sum(j.parallelism for j in jobs if not j.suspended),
            "active": sum(1 for p in o.pods if p.component == SENDER and p.running),
        }
        status["ranges"] = {
            "total": sum(w.finished + w.open for w in ledger.waves),
            "finished": sum(w.finished for w in ledger.waves),
            "active": sum(w.active for w in ledger.waves),
        }
        status["wave"] = _wave(o, ledger)
        status["failures"] = _failures(ledger) if ledger.failures is not None or not same_run else raw.get("failures")
    return status


def _failures(ledger: LedgerView) -> list[dict[str, Any]] | None:
    """The most frequent reasons, of the same form whatever a relay has said."""
    found = [
        {"code": clipped(f.code, CODE_BYTES), "count": f.count, "sample": clipped(f.sample, SAMPLE_BYTES)}
        for f in ledger.failures or ()
    ]
    return found or None


def fitted(status: dict[str, Any]) -> dict[str, Any]:
    """The same with messages and samples as short as they must be: below `STATUS_BYTES`, whatever others have said."""
    for holding, not_holding, samples in FITTING:
        if size(status) < STATUS_BYTES:
            break
        status = {
            **status,
            "conditions": [
                {**c, "message": _cut(c["message"], holding if c["status"] == "True" else not_holding)}
                for c in status["conditions"]
            ],
        }
        if "failures" in status:
            status["failures"] = [{**f, "sample": _cut(f.get("sample", ""), samples)} for f in status["failures"]]
    return status


def size(value: Any) -> int:
    """Bytes of JSON, as the API server writes it: with <, > and & escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return len(text.encode()) + 5 * sum(map(text.count, "<>&"))


def _cut(text: str, most: int) -> str:
    """As much of it as takes `most` bytes of JSON."""
    while size(text) - 2 > most:
        text = text[: min(len(text) - 1, most)]
    return text


def _other_definition(o: Observation) -> bool:
    run, definition = (o.ledger.run if o.ledger else None), o.campaign.definition
    return bool(run and definition and run.definition_hash != definition.definition_hash())


def _wave(o: Observation, ledger: LedgerView) -> dict[str, Any] | None:
    """The wave that people look at: Main while it runs, else the newest."""
    if not ledger.waves or not ledger.run:
        return None
    at_work = ledger.at_work
    main = [w for w in at_work if w.kind is not WaveKind.RETRY]
    wave = (main or at_work or sorted(ledger.waves, key=lambda w: w.number))[-1]
    return {"kind": str(wave.kind), "number": wave.number, "jobName": job_name(o, ledger.run.id, wave.number)}


def eta(o: Observation, ledger: LedgerView) -> datetime | None:
    """When it will be done at the present rate. A run that is paused or does not move has no such time."""
    run, totals = ledger.run, ledger.totals
    if not run or run.state is not RunState.OPEN or o.suspended or o.paused or cancel.policy(o) or end_time.policy(o):
        return None
    if any(w.held for w in ledger.waves):
        return None  # what a canary's steps will say is not known
    waits_for_retry = not totals.remaining and totals.deferred
    if waits_for_retry:
        return ledger.next_due if ledger.next_due and ledger.next_due > o.now else None
    if o.pace.per_second * FARTHEST.total_seconds() <= totals.remaining or not totals.remaining:
        return None
    work = timedelta(seconds=totals.remaining / o.pace.per_second)
    if o.held or not o.campaign.spec or (at := windows.worked_off(o.campaign.spec.schedule, o.now, work)) is None:
        return None
    if totals.deferred and ledger.next_due:
        at = max(at, ledger.next_due)
    return at + timedelta(seconds=-at.timestamp() % ETA_STEP)


PHASES = (Type.COMPLETE, Type.FAILED, Type.STALLED, Type.SUSPENDED, Type.SENDING)
"""Conditions that make a phase, the strongest first."""
PHASES_WITHOUT_SENDING = {
    "WaitingForRetry": "Waiting",
    "Completing": "Completing",
    "Cancelling": "Cancelling",
    "Ending": "Ending",
    "WaitingForWindow": "Waiting",
    "WaitingForQuota": "Waiting",
    "WaitingForApproval": "Waiting",
    "CanaryPause": "Waiting",
}
"""Phases of an open run by the reason why it does not send."""


def phase(o: Observation, conditions: tuple[Condition, ...]) -> str:
    """One word for people. No logic reads it."""
    holds = {c.type for c in conditions if c.status}
    for type_ in PHASES:
        if type_ in holds:
            return str(type_)
    run = o.ledger.run if o.ledger else None
    if run and run.state is RunState.OPEN:
        sending = next(c.reason for c in conditions if c.type is Type.SENDING)
        return PHASES_WITHOUT_SENDING.get(sending, "Starting")
    return "Planned" if Type.PLANNED in holds else "Planning"


def changed_in_kind(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a condition, the phase or the run changed: such a change is written at once."""

    def essence(status: Mapping[str, Any]) -> Any:
        conditions = [(c.get("type"), c.get("status"), c.get("reason")) for c in status.get("conditions") or ()]
        return conditions, status.get("phase"), status.get("observedGeneration"), status.get("startTime")

    return bool(essence(before) != essence(after))


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any], resource_version: str | None) -> dict[str, Any]:
    """A JSON merge patch (RFC 7386) of the status; with a resourceVersion it fails on any edit since."""
    gone = {key: None for key in before if key not in after}
    metadata = {"metadata": {"resourceVersion": resource_version}} if resource_version else {}
    return {**metadata, "status": {**gone, **after}}


def rate_text(per_second: float) -> str:
    """Three digits are enough for people: 13.9/s, 1000/s, 0.5/s; slow ones by the hour."""
    if 0 < per_second < 0.1:
        return f"{per_second * 3600:.3g}/h"
    return f"{per_second:.0f}/s" if per_second >= 100 else f"{per_second:.3g}/s"
