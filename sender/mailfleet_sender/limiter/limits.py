"""An account's limits as the scripts take them, and the arithmetic of the quota's window. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from mailfleet_sender.contract.relay import QuotaWindow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mailfleet_sender.contract.rate import Rate
    from mailfleet_sender.contract.relay import Quota, Relay

BUCKET_SECONDS = 300
BUCKETS = 289
"""As in reserve.lua: a day of buckets, and one more for mail that the relay takes later than its permit."""
USAGE_LOOK_BACK = timedelta(hours=26)
"""Older usage is in no window: neither a day of 25 h, when summer time ends, nor 24 h and its buckets."""
DAYS_AHEAD = 32
"""Midnights that Redis is told of. Who finds that they have run out tells it more."""


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """What holds for one account.

    Attributes:
        rate: of the whole account.
        domains: rates of single domains, by lower-case name.
        quota: messages in a window; None: any number.
        connections: of all pods together; None: any number.
    """

    rate: Rate
    domains: Mapping[str, Rate] = field(default_factory=dict)
    quota: Quota | None = None
    connections: int | None = None

    @classmethod
    def of(cls, relay: Relay) -> AccountLimits:
        """A relay's limits."""
        return cls(relay.rate, relay.domain_rates, relay.limits.quota, relay.connections.max)

    def arguments(self, version: int, now: datetime) -> list[str | int | float]:
        """What limits.lua takes."""
        quota = self.quota
        pairs: dict[str, str | int | float] = {"rate": self.rate.per_second, "burst": self.rate.burst}
        if self.connections:
            pairs["connections"] = self.connections
        if self.domains:
            pairs["domains"] = " ".join(self.domains)
            pairs |= {f"domain:{name}": rate.per_second for name, rate in self.domains.items()}
        window = ""
        if quota:
            window = f"{quota.window} {quota.time_zone or ''}".strip()
            pairs["quota"] = quota.messages
            if quota.window is QuotaWindow.DAY:
                midnights = days_around(now, quota.time_zone or "UTC")
                pairs["quota-days"] = " ".join(str(int(m.timestamp()) * 1_000_000) for m in midnights)
        return [version, window, *(x for pair in pairs.items() for x in pair)]


def days_around(now: datetime, time_zone: str) -> list[datetime]:
    """The beginnings of yesterday, today and the next days in a zone, in order, UTC.

    A day begins at 00:00 of the zone's clocks, or, where that hour is left out, when the clocks go on. Made here
    and not in Lua, which knows nothing of daylight saving.
    """
    zone = ZoneInfo(time_zone)
    today = now.astimezone(zone).date()
    days = (today + timedelta(days=n) for n in range(-1, DAYS_AHEAD))
    return [datetime(d.year, d.month, d.day, tzinfo=zone).astimezone(UTC) for d in days]


def bucket_of(moment: datetime) -> int:
    """The number of the bucket of a moment."""
    return int(moment.timestamp()) // BUCKET_SECONDS


def usage_arguments(usage: Iterable[tuple[datetime, int]]) -> list[int]:
    """What usage.lua takes of the ledger's sums (beginning of a bucket, messages)."""
    return [x for moment, n in usage if n > 0 for x in (bucket_of(moment), n)]
