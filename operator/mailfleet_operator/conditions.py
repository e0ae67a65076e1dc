"""Conditions of a campaign, as the Kubernetes API conventions want them. Pure.

Each type appears in every status, so that `kubectl wait` and health checks never guess. The policies
say what is true; what nobody speaks of is False for a plain reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from .words import clipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MESSAGE_BYTES = 256
"""A status has a fixed size; a message is for one line of a terminal."""


class Type(StrEnum):
    """The condition types, in the order in which a status lists them."""

    PLANNED = "Planned"
    SENDING = "Sending"
    SUSPENDED = "Suspended"
    THROTTLED = "Throttled"
    STALLED = "Stalled"
    COMPLETE = "Complete"
    FAILED = "Failed"


TYPES: Mapping[str, Type] = {str(t): t for t in Type}
STATUSES: Mapping[str, bool] = {"True": True, "False": False}
SILENT: Mapping[Type, tuple[str, str]] = {
    Type.PLANNED: ("Pending", "nothing is planned yet"),
    Type.SENDING: ("NotSending", "no mail is being sent"),
    Type.SUSPENDED: ("NotSuspended", "spec.suspend is false"),
    Type.THROTTLED: ("NotThrottled", "nothing holds the senders back"),
    Type.STALLED: ("NotStalled", "nothing is in the way"),
    Type.COMPLETE: ("NotComplete", "recipients are left"),
    Type.FAILED: ("NotFailed", "the run has not failed"),
}
"""Reason and message of a type that no policy spoke of."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: `status` is True, False, or None for Unknown."""

    type: Type
    status: bool | None
    reason: str
    message: str
    since: datetime | None = None
    generation: int | None = None

    def as_manifest(self) -> dict[str, Any]:
        """The form of metav1.Condition."""
        return {
            "type": str(self.type),
            "status": "Unknown" if self.status is None else str(self.status),
            "reason": self.reason,
            "message": self.message,
            "lastTransitionTime": time_text(self.since),
            "observedGeneration": self.generation,
        }

    @classmethod
    def from_manifest(cls, data: Mapping[str, Any]) -> Condition | None:
        """Read what a status holds; None for a type of another version."""
        if (type_ := TYPES.get(str(data.get("type")))) is None:
            return None
        return cls(
            type_,
            STATUSES.get(str(data.get("status"))),
            str(data.get("reason", "")),
            str(data.get("message", "")),
            parse_time(data.get("lastTransitionTime")),
            data.get("observedGeneration"),
        )


def true(type_: Type, reason: str, message: str) -> Condition:
    """A condition that holds."""
    return Condition(type_, status=True, reason=reason, message=clip(message))


def false(type_: Type, reason: str, message: str) -> Condition:
    """A condition that does not hold, and why."""
    return Condition(type_, status=False, reason=reason, message=clip(message))


def clip(message: str, octets: int = MESSAGE_BYTES) -> str:
    """On one line, without addresses, cut to so many octets of UTF-8."""
    return clipped(message, octets)


def settle(
    said: Iterable[Condition], before: Iterable[Condition], *, now: datetime, generation: int
) -> tuple[Condition, ...]:
    """All types once, in order. Who speaks first is heard; a time changes only with its status."""
    first: dict[Type, Condition] = {}
    for condition in said:
        first.setdefault(condition.type, condition)
    old = {c.type: c for c in before}
    result = []
    for type_ in Type:
        condition = first.get(type_) or false(type_, *SILENT[type_])
        known = old.get(type_)
        since = known.since if known and known.since and known.status == condition.status else now
        result.append(replace(condition, since=since, generation=generation))
    return tuple(result)


def time_text(at: datetime | None) -> str | None:
    """RFC 3339 in UTC with whole seconds, as metav1.Time."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at else None


def parse_time(text: object) -> datetime | None:
    """Read an RFC 3339 time; None for anything else."""
    if not isinstance(text, str) or not text:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
