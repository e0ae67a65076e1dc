"""The audience is planned by a Job; a plan that failed is tried again by itself, with a growing delay, and at
once when the campaign is edited. So whatever was missing may be mended outside, and the campaign goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator import delays
from mailfleet_operator.actions import Action, CreatePlanJob, DeleteJob
from mailfleet_operator.conditions import MESSAGE_BYTES, Condition, Type, false, time_text, true
from mailfleet_operator.observation import PLANNER
from mailfleet_sender.contract.accounts import ReportReason, RunState

from . import forecast, relay
from .step import Step

if TYPE_CHECKING:
    from datetime import datetime

    from mailfleet_operator.observation import JobView, Observation, Skipped


def policy(o: Observation) -> Step | None:
    """One planner at a time, for the definition as it is now."""
    if not (o.ledger and o.ledger.run):
        return None
    run = o.ledger.run
    if run.state is not RunState.PLANNING:
        message = counted(o)
        if run.state is RunState.PLANNED:
            message = counted(o, ", ".join(map(_words, o.ledger.skipped))) + forecast.words(o) + relay.doubts(o)
            message += forecast.domains(o, room=MESSAGE_BYTES - len(message.encode()))
        return Step(conditions=(true(Type.PLANNED, "Planned", message),))
    jobs = [j for j in o.jobs if j.component == PLANNER and j.run == run.id]
    own = [j for j in jobs if j.owner_uid == o.campaign.uid and not j.deleting]
    outdated = tuple(DeleteJob(j.name, j.uid, "the campaign was edited") for j in own if j.made_for != o.made_for_plan)
    current = sorted((j for j in own if j.made_for == o.made_for_plan), key=lambda j: j.attempt)
    if not current:
        # A Job of our name that is going, or that belongs to a deleted campaign of this name, is waited out.
        return Step((*outdated, CreatePlanJob(run.id, 1)), (_planning(),), last=True)
    latest = current[-1]
    if not latest.over:
        return Step(outdated, _as_before(o) if latest.attempt > 1 else (_planning(),), last=True)
    actions: tuple[Action, ...] = outdated
    if o.now >= next_attempt(latest):
        done = tuple(DeleteJob(j.name, j.uid, "another attempt follows") for j in current)
        actions = (*outdated, CreatePlanJob(run.id, latest.attempt + 1), *done)
    return Step(actions, failure(o, latest), last=True)


def counted(o: Observation, reasons: str = "") -> str:
    """How many recipients a plan has, and why some are skipped; of a file, which nobody watches, as of when."""
    if o.ledger is None:
        return ""
    totals, read_at = o.ledger.totals, o.ledger.file_read_at
    as_of = f"; the file as of {time_text(read_at)}" if read_at else ""
    why = f" ({reasons})" if reasons else ""
    return f"{totals.planned} recipients, {totals.skipped} of them skipped{why}{as_of}"


def _words(skipped: Skipped) -> str:
    """How many, why, and where in the file."""
    lines = ", ".join(skipped.lines) + ", ..." * (skipped.count > len(skipped.lines))
    where = f" at line{'s' * (skipped.count > 1)} {lines}" if skipped.lines else ""
    return f"{skipped.count} {skipped.reason}{where}"


def next_attempt(job: JobView) -> datetime:
    """When a plan that failed is tried again."""
    if job.ended_at is None:
        raise ValueError("a Job that is over has an end")
    return job.ended_at + delays.growing(job.attempt)


def failure(o: Observation, job: JobView) -> tuple[Condition, ...]:
    """Why there is no plan: the planner's report, else its last words, else how it ended."""
    if job.complete:
        return (_planning(),)
    reason, message = "PlanFailed", ""
    reports = [r for r in (o.ledger.reports if o.ledger else ()) if job.is_of(r.reporter)]
    if reports:
        report = max(reports, key=lambda r: r.at)
        if report.reason is not ReportReason.INTERNAL_ERROR:
            reason = str(report.reason)
        message = report.message
    else:
        pods = [p for p in o.pods_of(job) if p.exit_code is not None]
        for pod in pods[-1:]:
            message = pod.last_words or f"the planner ended with {pod.exit_reason or 'exit'} {pod.exit_code}"
    message = message or f"the planner's Job {job.name} failed: {job.failed_message or job.failed_reason}"
    return (false(Type.PLANNED, reason, message), true(Type.STALLED, reason, message))


def _as_before(o: Observation) -> tuple[Condition, ...]:
    """What the attempt before said, until this one says otherwise: conditions must not flicker."""
    status = o.campaign.status
    known = tuple(c for t in (Type.PLANNED, Type.STALLED) if (c := status.condition(t)))
    return known if len(known) == 2 else (_planning(),)


def _planning() -> Condition:
    return false(Type.PLANNED, "Planning", "the planner reads the recipients")
