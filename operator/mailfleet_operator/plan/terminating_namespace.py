"""A namespace that is being deleted is freed: its Jobs go, so that their pods may.

Pods keep the finalizer batch.kubernetes.io/job-tracking until the Job controller takes it off, which it
does not while it still tries to replace them in a namespace that takes nothing new. The run stays in the
ledger: the same campaign in a new namespace of that name goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.actions import DeleteJob

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import JobView, Observation


def policy(o: Observation) -> Step | None:
    """Delete all Jobs and do nothing else."""
    return Step(deletions(o.jobs), last=True) if o.namespace_terminating else None


def deletions(jobs: tuple[JobView, ...]) -> tuple[DeleteJob, ...]:
    """What frees the namespace of these Jobs."""
    return tuple(DeleteJob(j.name, j.uid, "the namespace is being deleted") for j in jobs if not j.deleting)
