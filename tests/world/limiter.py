"""The limiter: what it was told of campaigns, and whether it gives permits now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailfleet_sender.errors import LimiterUnavailable
from mailfleet_sender.limiter.account import AccountState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from mailfleet_sender.limiter import AccountLimits

    from .clock import Clock


class ModelLimiter:
    """As `LimiterAdmin`, and what senders ask."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.away = False
        self.told: dict[str, dict[str, Any]] = {}
        self.exhausted_until: datetime | None = None

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
        brake: object | None = None,
    ) -> None:
        self.ping()
        assert weight >= 1
        turns = [] if open_until is None else [open_until, *(t for opening in reopens for t in opening)]
        assert turns == sorted(turns), turns
        self.told[campaign] = {"paused": paused, "turns": turns, "weight": weight}

    def forget(self, account: str, campaign: str) -> None:
        self.ping()
        self.told.pop(campaign, None)

    def state(self, account: str) -> AccountState:
        self.ping()
        return AccountState(1, 10.0, 1.0, paused=False, booked_seconds=0.0, campaigns={},
                            exhausted_until=self.exhausted_until)  # fmt: skip

    # --- senders ---------------------------------------------------------------------------------------
    def permits(self, campaign: str) -> bool:
        """Whether a sender gets a permit."""
        if self.away or (self.exhausted_until and self._clock.now < self.exhausted_until):
            return False
        said = self.told.get(campaign)
        if said is None:
            return True
        passed = sum(t <= self._clock.now for t in said["turns"])
        return not said["paused"] and passed % 2 == 0
