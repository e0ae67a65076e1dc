"""Every rule about relays: an observation in, actions and the status out. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mailfleet_operator.status import rate_text

from . import preflight, ready, throttled
from .conditions import RelayType, Said
from .observation import AccountView, RelayObservation

if TYPE_CHECKING:
    from datetime import datetime

    from mailfleet_operator.actions import CreatePreflightJob, DeleteJob

__all__ = ["AccountView", "RelayObservation", "RelayPlan", "Said", "plan"]


@dataclass(frozen=True, slots=True)
class RelayPlan:
    """What to do about one relay, what to say, and when its next preflight is due."""

    actions: tuple[CreatePreflightJob | DeleteJob, ...]
    status: dict[str, Any]
    due: datetime | None


def plan(o: RelayObservation, refused: Said | None = None) -> RelayPlan:
    """Ask each policy.

    Args:
        o: the relay.
        refused: what Kubernetes said when the actions were tried; it counts unless more is known.
    """
    following = preflight.policy(o)
    said = ready.policy(o)
    if refused and said.holds is None:
        said = refused
    return RelayPlan(following.actions, _status(o, said, throttled.policy(o)), following.due)


def _status(o: RelayObservation, is_ready: Said, is_throttled: Said) -> dict[str, Any]:
    relay, account = o.relay, o.account
    spoken = ((RelayType.READY, is_ready), (RelayType.THROTTLED, is_throttled))
    used = account.used if account and account.used is not None else o.used_today
    figures = {
        "observedGeneration": relay.generation,
        "effectiveRate": rate_text(account.effective) if account else None,
        "usedToday": used,
        "campaigns": o.campaigns,
        "capabilities": list(o.verdict.capabilities) if o.verdict and o.verdict.capabilities else None,
        "conditions": [
            said.as_manifest(type_, relay.status, now=o.now, generation=relay.generation) for type_, said in spoken
        ],
    }
    return {name: value for name, value in figures.items() if value is not None}
