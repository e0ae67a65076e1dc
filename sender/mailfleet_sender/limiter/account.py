"""What Redis knows about one relay account, read for a status or a person. Pure but for its input."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .limits import BUCKET_SECONDS, BUCKETS

if TYPE_CHECKING:
    from collections.abc import Mapping

HUNGER_SECONDS = 1.5
"""As HUNGER in reserve.lua: an older answer says nothing about the pod any more."""
PRESENT_SECONDS = 3.0
"""As PRESENT in reserve.lua: a pod that asked within this time may hold connections."""
LATEST_SECONDS = 2.0
"""As LATEST in reserve.lua: a permit is used within this time."""
RETURN_PER_SECOND = 0.05 / 60
"""As RETURN in reserve.lua, which counts when somebody asks; of an account at rest it is counted here."""
UNTOLD_WEIGHT = 100
"""As in reserve.lua: the API's default, for a campaign of which the limiter has not been told."""
CAMPAIGN_FIELDS = frozenset({"weight", "paused", "until", "brake-percent", "brake-sample", "braked"})
"""What is said of each campaign in the hash of limits, as field:campaign."""
OUTCOME_FIELDS = ("sent", "failed", "faults")


@dataclass(frozen=True, slots=True)
class Brake:
    """When a campaign stops by itself: more than `max_failed_percent` of at least `minimum_sample` outcomes failed."""

    max_failed_percent: int
    minimum_sample: int = 200


@dataclass(frozen=True, slots=True)
class CampaignUse:
    """One campaign's settings, its pods, and what the brake counted.

    Attributes:
        weight: share of the relay.
        paused: told to pause.
        open_until: when its window closes; None: no end.
        reopens: when it opens and closes again after that.
        pods: that asked in the last 1.5 s (paused, closed and braked campaigns show none).
        hungry_pods: those of them that were given less than they could use.
        brake: when it stops by itself; None: never.
        braked_since: when it did; None: it did not, or was released.
        sent, failed, faults: the outcomes that the brake judges: those of about the last ten samples.
    """

    weight: int = UNTOLD_WEIGHT
    paused: bool = False
    open_until: datetime | None = None
    pods: int = 0
    hungry_pods: int = 0
    brake: Brake | None = None
    braked_since: datetime | None = None
    sent: int = 0
    failed: int = 0
    faults: int = 0
    reopens: tuple[tuple[datetime, datetime], ...] = ()


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """How far the quota is used.

    Attributes:
        messages: in a window.
        used: of them, permits taken since the present window began; None: not known yet, nothing is sent until it is.
        room_at: when there will be room again; None: there is.
    """

    messages: int
    used: int | None
    room_at: datetime | None = None

    @property
    def left(self) -> int:
        """Messages that may still be sent in this window."""
        return max(0, self.messages - self.used) if self.used is not None else 0


@dataclass(frozen=True, slots=True)
class AccountState:
    """One relay account in one moment.

    Attributes:
        version: of the limits; None: Redis has no limits, the next sender writes them from the ledger.
        permits_per_second: the limit.
        burst: permits that may be used at once.
        paused: the whole account is.
        booked_seconds: how far ahead of now permits are booked, 0 to about 1 s, longer below 1/s.
        campaigns: by namespace/name: all that were told or asked lately.
        effective_per_second: the rate that holds now: lower than the limit for some minutes after the relay throttled.
        pods: that asked in the last 3 s.
        connections: that all pods together may hold; None: any number.
        domain_rates: permits per second of domains with a limit.
        quota: None: there is none.
        exhausted_until: the relay said that a quota of its own is used up: nothing is asked of it until then.
    """

    version: int | None
    permits_per_second: float | None
    burst: float | None
    paused: bool
    booked_seconds: float
    campaigns: Mapping[str, CampaignUse]
    effective_per_second: float | None = None
    pods: int = 0
    connections: int | None = None
    domain_rates: Mapping[str, float] = field(default_factory=dict)
    quota: QuotaUse | None = None
    exhausted_until: datetime | None = None

    @property
    def slowed(self) -> bool:
        """Whether the relay's throttling holds the rate below the limit."""
        return bool(self.permits_per_second and (self.effective_per_second or 0) < 0.999 * self.permits_per_second)


def read_account(
    limits: Mapping[str, str],
    state: Mapping[str, str],
    pods: Mapping[str, str],
    now: int,
    *,
    quota: Mapping[str, str] | None = None,
    outcomes: Mapping[str, str] | None = None,
) -> AccountState:
    """Read the hashes.

    Args:
        limits, state, pods, quota, outcomes: see reserve.lua.
        now: Redis TIME in microseconds.
    """
    asked: dict[str, list[bool]] = {}
    present = 0
    for entry in pods.values():
        at, hungry, campaign = entry.split(" ", 2)
        present += now - int(at) <= PRESENT_SECONDS * 1e6
        if now - int(at) <= HUNGER_SECONDS * 1e6:
            asked.setdefault(campaign, []).append(hungry == "1")
    told = {parts[2] for name in limits if (parts := name.partition(":"))[2] and parts[0] in CAMPAIGN_FIELDS}
    counts = outcomes or {}
    told |= {name.partition(":")[2] for name in counts}
    rate = float(limits["rate"]) if "rate" in limits else None
    return AccountState(
        version=int(limits["version"]) if "version" in limits else None,
        permits_per_second=rate,
        burst=float(limits["burst"]) if "burst" in limits else None,
        paused=limits.get("paused") == "1",
        booked_seconds=max(0, int(state.get("tat", now)) - now) / 1e6,
        campaigns={name: _use(name, limits, counts, asked.get(name, [])) for name in sorted(told | asked.keys())},
        effective_per_second=rate * _slow(state, now) if rate is not None else None,
        pods=present,
        connections=int(limits["connections"]) if "connections" in limits else None,
        domain_rates={d: float(limits[f"domain:{d}"]) for d in limits.get("domains", "").split()},
        quota=_quota(limits, quota or {}, now),
        exhausted_until=_ahead(state.get("shut-until"), now),
    )


def _use(name: str, limits: Mapping[str, str], counts: Mapping[str, str], asked: list[bool]) -> CampaignUse:
    percent = limits.get(f"brake-percent:{name}")
    turns = [t for text in limits.get(f"until:{name}", "").split() if (t := _moment(text))]
    return CampaignUse(
        weight=int(limits.get(f"weight:{name}", UNTOLD_WEIGHT)),
        paused=limits.get(f"paused:{name}") == "1",
        open_until=turns[0] if turns else None,
        reopens=tuple(zip(turns[1::2], turns[2::2], strict=False)),
        pods=len(asked),
        hungry_pods=sum(asked),
        brake=Brake(int(percent), int(limits[f"brake-sample:{name}"])) if percent else None,
        braked_since=_moment(limits.get(f"braked:{name}")),
        **{what: int(counts.get(f"{what}:{name}", 0)) for what in OUTCOME_FIELDS},
    )


def _slow(state: Mapping[str, str], now: int) -> float:
    """What the relay's throttling leaves of the rate."""
    seconds = max(0, now - int(state.get("slow-at", now))) / 1e6
    return min(1.0, float(state.get("slow", 1)) + seconds * RETURN_PER_SECOND)


def _moment(microseconds: str | int | None) -> datetime | None:
    return datetime.fromtimestamp(int(microseconds) / 1e6, UTC) if microseconds else None


def _ahead(microseconds: str | None, now: int) -> datetime | None:
    return _moment(microseconds) if microseconds and int(microseconds) > now else None


def _quota(limits: Mapping[str, str], taken: Mapping[str, str], now: int) -> QuotaUse | None:
    """As reserve.lua counts it."""
    if "quota" not in limits:
        return None
    messages = int(limits["quota"])
    if "known" not in taken:
        return QuotaUse(messages, None)
    first = int((now / 1e6 + LATEST_SECONDS) // BUCKET_SECONDS) - BUCKETS
    closes = None
    if days := [int(day) for day in limits.get("quota-days", "").split()]:
        first = max((day for day in days if day <= now), default=now) // 1_000_000 // BUCKET_SECONDS
        closes = min((day for day in days if day > now), default=None)
    buckets = {int(b): int(n) for b, n in taken.items() if b != "known" and int(b) >= first}
    used = sum(buckets.values())
    if used < messages:
        return QuotaUse(messages, used)
    if closes is None:
        too_many = used - messages
        for bucket in sorted(buckets):
            closes = int(((bucket + BUCKETS + 1) * BUCKET_SECONDS - LATEST_SECONDS) * 1e6)
            too_many -= buckets[bucket]
            if too_many < 0:
                break
    return QuotaUse(messages, used, _moment(closes))
