"""Every rule of the product: an observation in, actions and conditions out. Pure.

The order is the priority: what is in the way of everything else comes first, and the first that speaks of
a condition is heard. Each policy lives in the module of its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import (
    brake,
    canary,
    cancel,
    completion,
    end_time,
    ended,
    half_closed,
    hours,
    identity,
    late,
    ledger_away,
    limiter,
    lost_node,
    max_senders,
    orphans,
    pause,
    planning,
    progress,
    quota,
    relay,
    retry,
    retry_failed,
    rewound,
    sender_fault,
    senders,
    start,
    start_time_required,
    starting_deadline,
    superseded,
    suspension,
    terminating_namespace,
    trouble,
    unreadable,
    waves,
)
from .step import Plan, Policy, Step, chain

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation

__all__ = ["POLICIES", "Plan", "Policy", "Step", "plan"]

POLICIES: tuple[Policy, ...] = (
    terminating_namespace.policy,
    lost_node.policy,
    unreadable.policy,
    ledger_away.policy,
    rewound.policy,
    superseded.policy,
    identity.policy,
    retry_failed.policy,
    ended.policy,
    cancel.policy,
    end_time.policy,
    starting_deadline.policy,
    start_time_required.policy,
    half_closed.policy,
    relay.policy,
    trouble.policy,
    planning.policy,
    start.policy,
    sender_fault.policy,
    brake.policy,
    pause.policy,
    hours.policy,
    suspension.policy,
    orphans.policy,
    late.policy,
    completion.policy,
    canary.policy,
    waves.policy,
    retry.policy,
    quota.policy,
    senders.policy,
    limiter.policy,
    max_senders.policy,
    progress.policy,
)


def plan(o: Observation) -> Plan:
    """What to do about one campaign, and what is true of it."""
    return chain(POLICIES, o)
