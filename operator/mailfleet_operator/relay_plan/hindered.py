"""What keeps a preflight from running: it says nothing about the relay, but a missing Secret about its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.plan.trouble import FRESH, IMAGE_REASONS

from .conditions import no, unknown

if TYPE_CHECKING:
    from mailfleet_operator.observation import JobView, PodView

    from .conditions import Said
    from .observation import RelayObservation

MISSING = "CredentialsMissing"


def policy(o: RelayObservation) -> Said | None:
    """Name what the preflight at work waits for."""
    job = o.at_work
    if job is None:
        return None
    living = [p for p in o.pods_of(job) if p.alive]
    if any(p.running for p in living):
        return None
    for pod in living:
        if found := _waiting(o, pod):
            return found
    return None if living else _refused(o, job)


def _waiting(o: RelayObservation, pod: PodView) -> Said | None:
    if pod.unschedulable:
        return unknown("PodsUnschedulable", f"no node takes the preflight's pod: {pod.unschedulable}. Add room")
    reason, detail = pod.waiting_reason, pod.waiting_message
    if reason == "CreateContainerConfigError":
        return _missing(detail)
    if reason in IMAGE_REASONS:
        return unknown("ImageUnavailable", f"the image {o.image} cannot be had: {detail or reason}")
    mounts = [r for r in o.refusals if r.job == pod.name and o.now - r.at < FRESH]
    if mounts and pod.phase == "Pending":
        return _missing(mounts[-1].message)
    return None


def _missing(detail: str) -> Said:
    return no(MISSING, f"{detail}: create it in this namespace, and the relay is tried")


def _refused(o: RelayObservation, job: JobView) -> Said | None:
    for refusal in o.refusals:
        if refusal.job == job.name and o.now - refusal.at < FRESH:
            return unknown("PodsRejected", f"Kubernetes refuses the preflight's pod: {refusal.message}")
    return None
