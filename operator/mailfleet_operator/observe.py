"""All the reading: kopf's indexes and the ledger into one frozen `Observation`. No request to the API server."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from mailfleet_sender.contract.accounts import RunState
from mailfleet_sender.errors import LedgerUnavailable

from . import accounts, manifests
from .ledger import RelayFacts, RelayKey, RunKey
from .memory import CampaignMemory, RelayMemory
from .observation import BrakeView, LedgerView, Observation
from .pace import Pace
from .relay_plan import AccountView, RelayObservation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mailfleet_sender.limiter import AccountState

    from .batching import Batched
    from .observation import CampaignView, JobView, PodView, Refusal, RelayView
    from .settings import Settings

V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)
K_contra = TypeVar("K_contra", contravariant=True)

Name = tuple[str, str]
"""Namespace and name of a campaign or relay."""


class Index(Protocol[K_contra, V_co]):
    """What is used of kopf's indexes: a key, and the values of all objects under it."""

    def __contains__(self, key: object, /) -> bool: ...
    def __getitem__(self, key: K_contra, /) -> Iterable[V_co]: ...


class NamedIndex(Index[Name, V_co], Protocol[V_co]):
    """An index whose keys can be walked."""

    def __iter__(self) -> Iterator[Name]: ...


@dataclass(frozen=True, slots=True)
class Watched:
    """The cluster as the watches show it."""

    campaigns: NamedIndex[CampaignView]
    relays: NamedIndex[RelayView]
    accounts: Index[str, RelayView]
    jobs: NamedIndex[JobView]
    pods: Index[Name, PodView]
    relay_jobs: NamedIndex[JobView]
    relay_pods: Index[Name, PodView]
    nodes: Index[str, bool]
    terminating: Index[str, bool]
    refusals: Index[Name, Refusal]
    shared: frozenset[str] = frozenset()
    """Accounts of relays that hold in all namespaces."""

    def campaign(self, name: Name) -> CampaignView | None:
        """The campaign, if it is there and is not being deleted."""
        views = [c for c in _all(self.campaigns, name) if not c.deleting]
        return views[-1] if views else None

    def relay(self, name: Name) -> RelayView | None:
        """A relay, with the limits that hold for its account."""
        views = _all(self.relays, name)
        return accounts.settled(views[-1], self._peers(views[-1]), self.shared) if views else None

    def campaigns_with(self, namespace: str, relay: str) -> list[Name]:
        """The campaigns that name a relay."""
        found = (self.campaign(name) for name in list(self.campaigns) if name[0] == namespace)
        return [(c.namespace, c.name) for c in found if c and c.spec and c.spec.relay_ref.name == relay]

    def _peers(self, view: RelayView) -> list[RelayView]:
        key = accounts.key_of(view, self.shared)
        return _all(self.accounts, key) if key else []

    def is_terminating(self, namespace: str) -> bool:
        """Whether a namespace is being deleted."""
        return any(_all(self.terminating, namespace))

    def jobs_in(self, namespace: str) -> tuple[JobView, ...]:
        """All our Jobs of a namespace."""
        return tuple(
            j
            for index in (self.jobs, self.relay_jobs)
            for key in list(index)
            if key[0] == namespace
            for j in _all(index, key)
        )


def _all(index: Index[K_contra, V], key: K_contra) -> list[V]:
    return list(index[key]) if key in index else []


class Observer:
    """Makes observations; also keeps the memories, which are part of them."""

    def __init__(
        self,
        watched: Watched,
        ledger: Batched[RunKey, LedgerView],
        relays: Batched[RelayKey, RelayFacts],
        settings: Settings,
    ) -> None:
        self.watched, self._ledger, self._relays, self._settings = watched, ledger, relays, settings
        self.memories: dict[Name, CampaignMemory] = {}
        self.relay_memories: dict[Name, RelayMemory] = {}
        self.limiter_trouble: str | None = None
        """Why the limiter did not answer when it was last asked."""
        self.accounts: dict[str, AccountState] = {}
        """What it knew of the relays' accounts then."""

    async def observe(self, name: Name) -> Observation | None:
        """Everything about one campaign; None: it is not there."""
        if (campaign := self.watched.campaign(name)) is None:
            return None
        memory = self.memories.setdefault(name, CampaignMemory())
        campaign = _newest(campaign, memory)
        ledger, trouble = await self._read_ledger(campaign)
        now = datetime.now(UTC)
        if ledger and ledger.run:
            ledger = replace(ledger, run=replace(ledger.run, snapshot_current=memory.amended == campaign.generation))
            _measure(memory, ledger, now)
        relay = self.watched.relay((name[0], campaign.spec.relay_ref.name)) if campaign.spec else None
        memory.account = relay.relay.account if relay and relay.relay else ""
        memory.relay = campaign.spec.relay_ref.name if campaign.spec else ""
        jobs = tuple(_all(self.watched.jobs, name))
        pods = tuple(_all(self.watched.pods, name))
        account = self.accounts.get(memory.account)
        if room_at := _room_at(account, now):
            memory.quota_short_at = now
        o = Observation(
            now=now,
            campaign=campaign,
            ledger=ledger,
            ledger_trouble=trouble,
            namespace_terminating=self.watched.is_terminating(name[0]),
            relay=relay,
            jobs=jobs,
            pods=pods,
            refusals=self._refusals(name[0], jobs, pods),
            lost_nodes=self._lost_nodes(pods),
            limiter_trouble=self.limiter_trouble,
            pace=memory.pace,
            account_rate=self._account_rate(memory.account),
            brake=_brake(account, f"{name[0]}/{name[1]}"),
            quota_room_at=room_at,
            quota_short_at=memory.quota_short_at,
            quota_left=account.quota.left if account and account.quota else None,
            scaling=memory.scaling,
            image=self._settings.image.name,
            max_senders=self._settings.max_senders,
            require_start_time=self._settings.require_start_time,
        )
        if campaign.spec is None:
            return o
        secret = self._settings.image.secret
        return replace(
            o,
            made_for_plan=manifests.made_for_plan(campaign, secret),
            made_for_send=manifests.made_for_send(campaign, relay, secret),
        )

    async def observe_relay(self, relay: RelayView, account: AccountState | None, ledger: str) -> RelayObservation:
        """Everything about one relay.

        Args:
            relay: with the limits that hold for its account.
            account: what the limiter has of it; None: it does not answer.
            ledger: why the ledger could not be told of the relay; empty: it could.
        """
        name = (relay.namespace, relay.name)
        facts, trouble = None, ledger
        if relay.relay and not trouble:
            try:
                facts = await self._relays.ask(RelayKey(*name, relay.relay.account))
            except LedgerUnavailable as error:
                trouble = str(error)
        now = datetime.now(UTC)
        jobs, pods = tuple(_all(self.watched.relay_jobs, name)), tuple(_all(self.watched.relay_pods, name))
        return RelayObservation(
            now=now,
            relay=relay,
            made_for=manifests.made_for_preflight(relay, self._settings.image.secret),
            image=self._settings.image.name,
            jobs=jobs,
            pods=pods,
            refusals=self._refusals(relay.namespace, jobs, pods),
            found=facts.found if facts else None,
            ledger_trouble=trouble,
            limiter_trouble=self.limiter_trouble or "",
            account=_account_view(account, now),
            used_today=facts.used_today if facts else None,
            campaigns=sum(
                1 for (at, _), m in self.memories.items() if at == name[0] and m.relay == name[1] and not m.ended
            ),
        )

    def relays_in_use(self) -> set[Name]:
        """Of campaigns that are not over."""
        return {(namespace, m.relay) for (namespace, _), m in self.memories.items() if m.relay and not m.ended}

    async def _read_ledger(self, campaign: CampaignView) -> tuple[LedgerView | None, str]:
        if campaign.spec is None:
            return None, "not asked, for the spec cannot be read"
        try:
            return await self._ledger.ask(RunKey(campaign.namespace, campaign.name, campaign.spec.run_id)), ""
        except LedgerUnavailable as error:
            return None, str(error)

    def _refusals(self, namespace: str, jobs: tuple[JobView, ...], pods: tuple[PodView, ...]) -> tuple[Refusal, ...]:
        names = [*(j.name for j in jobs), *(p.name for p in pods)]
        found = [r for n in names for r in _all(self.watched.refusals, (namespace, n))]
        return tuple(sorted(found, key=lambda r: r.at))

    def _lost_nodes(self, pods: tuple[PodView, ...]) -> frozenset[str]:
        """Nodes of pods that are ending: the others are nobody's concern."""
        nodes = {p.node for p in pods if p.node and p.deletion_deadline}
        return frozenset(n for n in nodes if not any(_all(self.watched.nodes, n)))

    def _account_rate(self, account: str) -> float:
        return sum(m.pace.per_second for m in self.memories.values() if account and m.account == account)


def _room_at(account: AccountState | None, now: datetime) -> datetime | None:
    """When there is room for mail again, if the account's quota or one that the relay keeps itself is used up."""
    found = (account.quota.room_at if account and account.quota else None, account.exhausted_until if account else None)
    return max((at for at in found if at and at > now), default=None)


def _account_view(account: AccountState | None, now: datetime) -> AccountView | None:
    if account is None or account.permits_per_second is None:
        return None
    limit, effective = account.permits_per_second, account.effective_per_second
    used = account.quota.used if account.quota else None
    return AccountView(limit, limit if effective is None else effective, used, _room_at(account, now))


def _brake(account: AccountState | None, campaign: str) -> BrakeView | None:
    """What the limiter counted, if it has stopped the campaign."""
    use = account.campaigns.get(campaign) if account else None
    if use is None or use.braked_since is None:
        return None
    return BrakeView(use.braked_since, use.sent, use.failed, use.faults)


def _newest(campaign: CampaignView, memory: CampaignMemory) -> CampaignView:
    """What the API server answered to our last write, while the watch has not brought it yet."""
    if memory.written and memory.written.uid == campaign.uid and memory.stale == campaign.resource_version:
        return memory.written
    memory.written, memory.stale = None, campaign.resource_version
    return campaign


def _measure(memory: CampaignMemory, ledger: LedgerView, now: datetime) -> None:
    """One more sample of the run's totals."""
    if not ledger.run or ledger.run.state is not RunState.OPEN:
        memory.pace = Pace()
    else:
        pace = memory.pace if memory.run == ledger.run.id else Pace()
        memory.pace = pace.seen(ledger.totals, now)
    memory.run = ledger.run.id if ledger.run else 0
