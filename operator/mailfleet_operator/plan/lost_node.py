"""A pod on a lost node is declared failed, so that its index is given to another.

Nobody else does: with `podReplacementPolicy: Failed` a pod that only has a deletionTimestamp is waited for,
and its kubelet will never report. It is safe because the epoch fences the old sender if it still lives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.actions import FailPod
from mailfleet_operator.observation import NODE_GRACE

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation, PodView


def policy(o: Observation) -> Step | None:
    """Fail the pods whose deadline and grace have passed without a node to end them."""
    lost = tuple(FailPod(p.name, p.uid, p.node or "") for p in o.pods if _lost(o, p))
    return Step(lost) if lost else None


def _lost(o: Observation, pod: PodView) -> bool:
    if not pod.alive or pod.deletion_deadline is None or pod.node not in o.lost_nodes:
        return False
    return o.now > pod.deletion_deadline + NODE_GRACE
