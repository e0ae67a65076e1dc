"""Events for `kubectl describe`: what changed, told once. Pure; written only after the status was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .conditions import Type

if TYPE_CHECKING:
    from .conditions import Condition

BAD = frozenset({Type.STALLED, Type.FAILED})
TOLD_WHEN_FALSE = frozenset({Type.STALLED, Type.SUSPENDED})
"""Types whose end is news as well: it goes on again."""
WARNED = frozenset({"BrakeApplied", "SenderFault", "WaitingForApproval"})
"""Reasons that want a person."""
ENDINGS = {Type.STALLED: "Recovered", Type.SUSPENDED: "Resumed"}


@dataclass(frozen=True, slots=True)
class Event:
    """One line for people. `kind` is Normal or Warning."""

    kind: str
    reason: str
    message: str


def of_change(before: tuple[Condition, ...], after: tuple[Condition, ...]) -> tuple[Event, ...]:
    """What is news between two statuses: a condition that came to hold, another reason, or its end."""
    old = {c.type: c for c in before}
    events = []
    for condition in after:
        known = old.get(condition.type)
        was = bool(known and known.status)
        if condition.status and not (was and known and known.reason == condition.reason):
            kind = "Warning" if condition.type in BAD or condition.reason in WARNED else "Normal"
            events.append(Event(kind, condition.reason, condition.message))
        elif was and not condition.status and condition.type in TOLD_WHEN_FALSE:
            events.append(Event("Normal", ENDINGS[condition.type], condition.message))
        elif (
            condition.type is Type.SENDING and condition.reason in WARNED and (not known or known.reason not in WARNED)
        ):
            events.append(Event("Warning", condition.reason, condition.message))
    return tuple(events)
