"""What is in the way of a planner or of the senders, in words that tell the remedy.

Read from what Job.status does not show: reports in the ledger, what containers wait for, Events of pods that
were refused or cannot mount, exit codes. All of it passes by itself once the cause is mended; the one thing
done here is to replace a Job whose image cannot be had by one with the image configured now.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mailfleet_operator.actions import DeleteJob
from mailfleet_operator.conditions import Condition, Type, false, true
from mailfleet_operator.observation import PLANNER, SENDER
from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.contract.environment import Exit

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import JobView, Observation, PodView
    from mailfleet_sender.contract.accounts import Report

FRESH = timedelta(minutes=15)
"""How long a refusal counts: the Job controller tries again within a minute, but Events of one kind are
sent every five minutes only."""
IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"})
STALLING = frozenset(
    {
        ReportReason.RELAY_UNAVAILABLE,
        ReportReason.DATABASE_UNAVAILABLE,
        ReportReason.DATABASE_REFUSED,
        ReportReason.TABLE_NOT_FOUND,
        ReportReason.COLUMN_NOT_FOUND,
        ReportReason.INTERNAL_ERROR,
    }
)
"""Reports of senders that stop them; what only slows them shows as Throttled."""
CRASHES = 2
"""One pod may die of anything; the second in a row without progress is a pattern."""


def policy(o: Observation) -> Step | None:
    """Name the first trouble of the Jobs that should be at work."""
    if not (o.ledger and o.ledger.run):
        return None
    jobs = [j for j in o.own_jobs if j.run == o.ledger.run.id and not j.over and not j.deleting]
    for job in jobs:
        if found := _trouble(o, job):
            actions: tuple[DeleteJob, ...] = ()
            if found[0] == "ImageUnavailable" and job.image != o.image:
                actions = (DeleteJob(job.name, job.uid, f"its image cannot be had; {o.image} is configured now"),)
            return Step(actions, _conditions(o, job, *found))
    if found := _reported(o):
        return Step(conditions=(true(Type.STALLED, *found),))
    return None


def living_reports(o: Observation) -> tuple[Report, ...]:
    """Reports of senders that live (each takes its own back), and last words of the dead that no progress has
    outdated: while a password is refused again and again the reason must not flicker with each new pod.
    What planners report is told by `planning`, which knows which of them counts."""
    if not o.ledger:
        return ()
    living = {p.name for p in o.pods if p.component == SENDER and p.alive}
    dead = {p.name for p in o.pods if p.component == SENDER and not p.alive}
    moved = o.pace.moved_at
    return tuple(
        r for r in o.ledger.reports if r.reporter in living or (r.reporter in dead and (moved is None or r.at > moved))
    )


def _conditions(o: Observation, job: JobView, reason: str, message: str) -> tuple[Condition, ...]:
    stalled = true(Type.STALLED, reason, message)
    if job.component == PLANNER:
        return (stalled, false(Type.PLANNED, reason, message))
    if any(p.component == SENDER and p.running for p in o.pods):
        return (stalled,)  # those of another wave do send
    return (stalled, false(Type.SENDING, reason, message))


def _trouble(o: Observation, job: JobView) -> tuple[str, str] | None:
    pods = o.pods_of(job)
    living = [p for p in pods if p.alive]
    if any(p.running for p in living):
        return None
    for pod in living:
        if found := _waiting(o, pod):
            return found
    if living or job.suspended:
        return None if job.suspended else _crashing(o, pods)
    for refusal in o.refusals:
        if refusal.job == job.name and o.now - refusal.at < FRESH:
            return "PodsRejected", f"Kubernetes refuses the pods: {_remedied(refusal.message)}"
    return _crashing(o, pods)


def _waiting(o: Observation, pod: PodView) -> tuple[str, str] | None:
    if pod.unschedulable:
        return "PodsUnschedulable", f"no node takes the pods: {pod.unschedulable}. Add room, or mend spec.senders"
    reason, detail = pod.waiting_reason, pod.waiting_message
    if reason == "CreateContainerConfigError":
        return "CredentialsMissing", f"{detail}: create it in this namespace, and the campaign goes on"
    if reason in IMAGE_REASONS:
        return "ImageUnavailable", f"the image {o.image} cannot be had: {detail or reason}"
    if reason in {"CreateContainerError", "RunContainerError"}:
        return "SenderCrashing", f"the container cannot start: {detail or reason}"
    mounts = [r for r in o.refusals if r.job == pod.name and o.now - r.at < FRESH]
    if mounts and pod.phase == "Pending":
        detail = mounts[-1].message
        return "CredentialsMissing", f"{detail}: create it in this namespace, and the campaign goes on"
    return None


def _crashing(o: Observation, pods: tuple[PodView, ...]) -> tuple[str, str] | None:
    moved = o.pace.moved_at
    expected = {int(Exit.DONE), int(Exit.INTERRUPTED), int(Exit.IMPOSSIBLE)}
    crashed = [
        p
        for p in pods
        if p.exit_code is not None
        and p.exit_code not in expected
        and p.finished_at
        and o.now - p.finished_at < FRESH
        and (moved is None or p.finished_at > moved)
    ]
    if len(crashed) < CRASHES:
        return None
    last = max(crashed, key=lambda p: p.finished_at or o.now)
    how = f"{last.exit_reason or 'exit'} {last.exit_code}"
    remedy = "raise spec.senders.resources" if last.exit_reason == "OOMKilled" else "look at the log of its pods"
    words = f" {last.last_words}" if last.last_words else ""
    return "SenderCrashing", f"{len(crashed)} senders in a row died ({how}){words}: {remedy}"


def _reported(o: Observation) -> tuple[str, str] | None:
    """What senders say of themselves, if none of them sends: one that cannot is no stall of the others."""
    if o.pace.per_second > 0:
        return None
    reports = sorted((r for r in living_reports(o) if r.reason in STALLING), key=lambda r: r.at)
    if not reports:
        return None
    return str(reports[-1].reason), reports[-1].message


def _remedied(message: str) -> str:
    if "exceeded quota" in message:
        return f"raise the ResourceQuota. {message}"
    if "violates PodSecurity" in message:
        return f"allow `restricted` pods in this namespace. {message}"
    return message
