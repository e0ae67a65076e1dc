"""Conditions of a relay, as the Kubernetes API conventions want them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from mailfleet_operator.conditions import STATUSES, clip, time_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class RelayType(StrEnum):
    """The condition types, in the order in which a status lists them."""

    READY = "Ready"
    THROTTLED = "Throttled"


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of a type: `holds` is True, False, or None for Unknown."""

    holds: bool | None
    reason: str
    message: str

    @classmethod
    def before(cls, status: Mapping[str, Any], type_: RelayType) -> Said | None:
        """What a status says."""
        old = _old(status, type_)
        if not old:
            return None
        holds = STATUSES.get(str(old.get("status")))
        return cls(holds, str(old.get("reason", "")), str(old.get("message", "")))

    def as_manifest(
        self, type_: RelayType, before: Mapping[str, Any], *, now: datetime, generation: int
    ) -> dict[str, Any]:
        """The form of metav1.Condition; its time changes only with its status."""
        status = "Unknown" if self.holds is None else str(self.holds)
        old = _old(before, type_)
        since = old.get("lastTransitionTime") if old.get("status") == status else None
        return {
            "type": str(type_),
            "status": status,
            "reason": self.reason,
            "message": clip(self.message),
            "lastTransitionTime": since or time_text(now),
            "observedGeneration": generation,
        }


def yes(reason: str, message: str) -> Said:
    """It holds."""
    return Said(holds=True, reason=reason, message=message)


def no(reason: str, message: str) -> Said:
    """It does not hold, and why."""
    return Said(holds=False, reason=reason, message=message)


def unknown(reason: str, message: str) -> Said:
    """Nobody knows yet, and why."""
    return Said(holds=None, reason=reason, message=message)


def _old(status: Mapping[str, Any], type_: RelayType) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next((c for c in status.get("conditions") or () if c.get("type") == type_), {})
    return found
