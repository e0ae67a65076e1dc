"""Events for `kubectl describe`: what changed, told once. Pure; written only after the status was.

What comes and goes is one Event with a count, as client-go's recorder does it: one a reason, and not each time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from . import names
from .conditions import Type

if TYPE_CHECKING:
    from datetime import datetime

    from .conditions import Condition

BAD = frozenset({Type.STALLED, Type.FAILED})
TOLD_WHEN_FALSE = frozenset({Type.STALLED, Type.SUSPENDED})
"""Types whose end is news as well: it goes on again."""
SERIES = timedelta(minutes=50)
"""A reason that comes again within this time is the same Event; Kubernetes removes one an hour after it was written."""
PAUSE = timedelta(seconds=60)
"""Between two writes of one Event: what flickers is counted, and written with the next."""
WARNED = frozenset({"BrakeApplied", "SenderFault", "WaitingForApproval"})
"""Reasons that want a person."""
NOBODY_TO_RETRY = "NobodyToRetry"
ENDINGS = {Type.STALLED: "Recovered", Type.SUSPENDED: "Resumed"}


@dataclass(frozen=True, slots=True)
class Event:
    """One line for people. `kind` is Normal or Warning."""

    kind: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Told:
    """An Event in the cluster.

    Attributes:
        name: of the object.
        event: as it was said last.
        first, written: when it was said first, and when it was written last.
        count: how often it was said.
    """

    name: str
    event: Event
    first: datetime
    written: datetime
    count: int = 1


def tell(event: Event, known: Told | None, campaign: str, uid: str, now: datetime) -> Told:
    """What there is to say once more of a campaign: a new Event, or one more of a known one.

    It is to be written if `written` is now.
    """
    if known is None or now - known.written > SERIES:
        name = f"{names.stem(campaign)}.{names.digest(uid, event.reason, now.timestamp())}"
        return Told(name, event, now, now)
    written = now if now - known.written >= PAUSE else known.written
    return replace(known, event=event, written=written, count=known.count + 1)


def of_change(before: tuple[Condition, ...], after: tuple[Condition, ...]) -> tuple[Event, ...]:
    """What is news between two statuses: a condition that came to hold, another reason, or its end.

    Of two conditions with one reason a warning is told.
    """
    old = {c.type: c for c in before}
    events: dict[str, Event] = {}
    for condition in after:
        known = old.get(condition.type)
        was = bool(known and known.status)
        if condition.status and not (was and known and known.reason == condition.reason):
            kind = "Warning" if condition.type in BAD or condition.reason in WARNED else "Normal"
            if kind == "Warning" or condition.reason not in events:
                events[condition.reason] = Event(kind, condition.reason, condition.message)
        elif was and not condition.status and condition.type in TOLD_WHEN_FALSE:
            reason = ENDINGS[condition.type]
            events[reason] = Event("Normal", reason, condition.message)
        elif (
            condition.type is Type.SENDING and condition.reason in WARNED and (not known or known.reason not in WARNED)
        ):
            events[condition.reason] = Event("Warning", condition.reason, condition.message)
    return tuple(events.values())


def of_retry(before: int, after: int, nobody: str | None) -> tuple[Event, ...]:
    """That a generation of spec.retryFailed came to nobody, when it was done: otherwise its wave would be the news."""
    return (Event("Normal", NOBODY_TO_RETRY, nobody),) if nobody and after > before else ()
