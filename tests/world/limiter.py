"""The limiter: what it was told of campaigns, and whether it gives permits now."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from mailfleet_sender.errors import LimiterUnavailable
from mailfleet_sender.limiter.account import AccountState, CampaignUse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from mailfleet_sender.limiter import AccountLimits, Brake

    from .clock import Clock


class ModelLimiter:
    """As `LimiterAdmin`, and what senders ask and tell.

    Attributes:
        outcomes: of each campaign, since its brake was released.
        braked: when it closed.
        changes: brakes that were released.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.away = False
        self.told: dict[str, dict[str, Any]] = {}
        self.exhausted_until: datetime | None = None
        self.outcomes: dict[str, Counter[str]] = {}
        self.braked: dict[str, datetime] = {}
        self.changes = 0
        self.emptied_at = -100.0

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the model's limiter knows no {name}: teach it what LimiterAdmin.{name} does")

    # --- the operator ----------------------------------------------------------------------------------
    def ping(self) -> None:
        if self.away:
            raise LimiterUnavailable("the model's Redis is away")

    def write_limits(self, account: str, version: int, limits: AccountLimits) -> bool:
        self.ping()
        return True

    def set_campaign(
        self,
        account: str,
        campaign: str,
        *,
        weight: int = 100,
        paused: bool = False,
        open_until: datetime | None = None,
        reopens: Sequence[tuple[datetime, datetime]] = (),
        brake: Brake | None = None,
    ) -> None:
        self.ping()
        assert weight >= 1
        turns = [] if open_until is None else [open_until, *(t for opening in reopens for t in opening)]
        assert turns == sorted(turns), turns
        self.told[campaign] = {"paused": paused, "turns": turns, "weight": weight, "brake": brake}

    def release_brake(self, account: str, campaign: str) -> None:
        self.ping()
        self.outcomes.pop(campaign, None)
        if self.braked.pop(campaign, None):
            self.changes += 1

    def forget(self, account: str, campaign: str) -> None:
        self.ping()
        self.told.pop(campaign, None)
        self.outcomes.pop(campaign, None)
        self.braked.pop(campaign, None)

    def empty(self) -> None:
        """As FLUSHALL."""
        self.emptied_at = self._clock.seconds
        self.told.clear()
        self.outcomes.clear()
        self.braked.clear()

    def state(self, account: str) -> AccountState:
        self.ping()
        campaigns = {c: self._use(c) for c in {*self.told, *self.outcomes, *self.braked}}
        return AccountState(1, 10.0, 1.0, paused=False, booked_seconds=0.0, campaigns=campaigns,
                            exhausted_until=self.exhausted_until)  # fmt: skip

    def _use(self, campaign: str) -> CampaignUse:
        counts = self.outcomes.get(campaign, {})
        return CampaignUse(
            braked_since=self.braked.get(campaign), sent=counts.get("sent", 0), failed=counts.get("failed", 0)
        )

    # --- senders ---------------------------------------------------------------------------------------
    def permits(self, campaign: str) -> bool:
        """Whether a sender gets a permit."""
        if self.away or campaign in self.braked or (self.exhausted_until and self._clock.now < self.exhausted_until):
            return False
        said = self.told.get(campaign)
        if said is None:
            return True
        passed = sum(t <= self._clock.now for t in said["turns"])
        return not said["paused"] and passed % 2 == 0

    def report(self, campaign: str, answer: str) -> None:
        """What the relay answered; the brake judges it. Nobody hears it while Redis is away."""
        if self.away or answer not in {"sent", "failed"}:
            return
        counts = self.outcomes.setdefault(campaign, Counter())
        counts[answer] += 1
        brake, total = self.told.get(campaign, {}).get("brake"), counts.total()
        if brake and total >= brake.minimum_sample and counts["failed"] * 100 > brake.max_failed_percent * total:
            self.braked.setdefault(campaign, self._clock.now)
