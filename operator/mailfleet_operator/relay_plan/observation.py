"""All that a decision about a relay may look at, read once and frozen. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from mailfleet_operator.observation import JobView, PodView, Refusal, RelayView
    from mailfleet_sender.contract.preflight import Preflight


@dataclass(frozen=True, slots=True)
class AccountView:
    """What the limiter has of the relay's account now.

    Attributes:
        limit: permits per second.
        effective: those that it gives: fewer for some minutes after the relay throttled.
        used: of the quota's window; None: there is no quota, or it is not known yet.
        room_at: the quota is used up until then; None: it is not.
    """

    limit: float
    effective: float
    used: int | None = None
    room_at: datetime | None = None

    @property
    def slowed(self) -> bool:
        """Whether the relay's throttling holds the rate below the limit."""
        return self.effective < 0.999 * self.limit


@dataclass(frozen=True, slots=True)
class RelayObservation:
    """One relay and all around it, at one moment.

    Attributes:
        relay: with the limits that hold for its account.
        made_for: what a preflight made now would be made for: see `manifests.made_for_preflight`.
        image: the sender's, as configured now.
        jobs, pods: of preflights.
        refusals: of these.
        found: the newest preflight that the ledger knows.
        ledger_trouble, limiter_trouble: why they do not answer; empty: they do.
        account: None: the limiter does not answer, or has no limits yet.
        used_today: messages since midnight UTC.
        campaigns: that use it and are not over.
    """

    now: datetime
    relay: RelayView
    made_for: str
    image: str
    jobs: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    found: Preflight | None = None
    ledger_trouble: str = ""
    limiter_trouble: str = ""
    account: AccountView | None = None
    used_today: int | None = None
    campaigns: int = 0

    @property
    def own_jobs(self) -> tuple[JobView, ...]:
        """Those of this very relay, not of a deleted one of its name, for what it says now."""
        mine = (j for j in self.jobs if j.owner_uid == self.relay.uid and not j.deleting)
        return tuple(j for j in mine if j.made_for == self.made_for)

    @property
    def at_work(self) -> JobView | None:
        """The preflight that has not ended."""
        return next((j for j in sorted(self.own_jobs, key=lambda j: j.name) if not j.over), None)

    @property
    def last(self) -> JobView | None:
        """The preflight that ended last."""
        over = [j for j in self.own_jobs if j.over]
        return max(over, key=lambda j: (j.ended_at or self.now, j.name), default=None)

    @property
    def verdict(self) -> Preflight | None:
        """What the newest preflight found, if it tried what the relay says now."""
        return self.found if self.found and self.found.made_for == self.made_for else None

    def pods_of(self, job: JobView) -> tuple[PodView, ...]:
        """The pods of a preflight."""
        return tuple(p for p in self.pods if p.job_uid == job.uid)
