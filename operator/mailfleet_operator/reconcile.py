"""One look at one key: observe, plan, apply, write the status. Nothing else decides or does."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from mailfleet_sender.errors import LedgerUnavailable

from . import boundaries, events, relay_plan, status, views
from .actions import RecordStart
from .cluster import CAMPAIGNS, RELAYS
from .conditions import time_text
from .errors import ClusterError, ObjectConflictError, ObjectGoneError
from .memory import RelayMemory
from .metrics import Shown
from .plan import plan
from .plan.retry_failed import came_to_nobody
from .plan.terminating_namespace import deletions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    from mailfleet_sender.limiter import AccountState

    from .apply import Hands
    from .cluster import Cluster
    from .memory import CampaignMemory
    from .observation import Observation, RelayView, Status
    from .observe import Name, Observer
    from .plan import Plan
    from .settings import Settings

T = TypeVar("T")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Key:
    """What is looked at: a campaign, a relay, or a namespace that is being deleted (its name is empty)."""

    kind: str
    namespace: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


SOON = 0.1
"""Seconds until a key that was changed is looked at again: the watch brings most changes within that time."""
PUBLISH_AGAIN_SECONDS = 30.0
"""A limiter that was emptied, or a ledger of an older day, learns of a relay again within this time and a tick."""
CAMPAIGN, RELAY, NAMESPACE = "campaign", "relay", "namespace"


class Reconciler:
    """Looks at keys. Blocking work runs in threads of `executor`."""

    def __init__(
        self, observer: Observer, hands: Hands, cluster: Cluster, settings: Settings, executor: Executor
    ) -> None:
        self._observer, self._hands, self._cluster = observer, hands, cluster
        self._settings, self._executor = settings, executor
        self.again: Callable[[Key, float], None] = lambda _key, _seconds: None
        """Called with a key that is to be looked at again after so many seconds."""

    async def look(self, key: Key) -> None:
        """Bring one key a step further."""
        if key.kind == CAMPAIGN:
            await self._campaign((key.namespace, key.name))
        elif key.kind == RELAY:
            await self._relay((key.namespace, key.name))
        else:
            jobs = deletions(self._observer.watched.jobs_in(key.namespace))
            try:
                await self._in_thread(lambda: self._hands.delete_jobs(key.namespace, jobs))
            except ClusterError as error:  # the next tick comes by again
                log.warning("Jobs were not deleted", why=str(error), namespace=key.namespace)

    async def survey(self) -> None:
        """Ask the limiter whether it is there, and what it knows of the accounts in use."""
        accounts = {m.account for m in self._observer.memories.values() if m.account and not m.ended}
        self._observer.accounts = await self._in_thread(partial(self._hands.survey, sorted(accounts)))
        self._observer.limiter_trouble = self._hands.limiter_trouble

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    # --- campaigns ------------------------------------------------------------------------------------
    async def _campaign(self, name: Name) -> None:
        if (o := await self._observer.observe(name)) is None:
            await self._forget(name)
            return
        memory = self._observer.memories[name]
        planned = plan(o)
        try:
            applied = await self._in_thread(partial(self._hands.apply, o, planned.actions, memory))
        except LedgerUnavailable as error:
            o = replace(o, ledger=None, ledger_trouble=str(error))
            planned = plan(o)
        else:
            planned = replace(planned, conditions=(*applied.conditions, *planned.conditions))
            if applied.again:
                self.again(Key(CAMPAIGN, *name), SOON)
        memory.ended = bool(o.ledger and o.ledger.run and o.ledger.run.ended)
        if not o.namespace_terminating:
            await self._write_status(o, planned, memory)

    async def _forget(self, name: Name) -> None:
        """The campaign was deleted: its Jobs go by their ownerReference, its run stays."""
        memory = self._observer.memories.pop(name, None)
        if memory and memory.told:
            account = memory.told.account
            await self._in_thread(lambda: self._hands.forget(account, "/".join(name)))

    async def _write_status(self, o: Observation, planned: Plan, memory: CampaignMemory) -> None:
        """Write it once, if it changed; at most every few seconds unless a condition did."""
        before = dict(o.campaign.status.raw)
        after = status.of_campaign(o, planned)
        memory.shown = Shown.of(o, after)
        started = next((a for a in planned.actions if isinstance(a, RecordStart)), None)
        if started:
            after["startTime"] = time_text(started.at)
        if after == before:
            return
        recent = time.monotonic() - memory.status_at < self._settings.status_seconds
        if recent and not status.changed_in_kind(before, after):
            return
        campaign = o.campaign
        patch = status.merge_patch(before, after, campaign.resource_version)
        where = (campaign.namespace, campaign.name)
        try:
            self._hands.boundaries.before(boundaries.STATUS)
            body = await self._in_thread(lambda: self._cluster.patch_status(CAMPAIGNS, *where, patch))
            self._hands.boundaries.after(boundaries.STATUS)
        except ObjectConflictError:
            self.again(Key(CAMPAIGN, *where), SOON)
            return
        except ObjectGoneError:
            return
        except ClusterError as error:
            log.warning("the status was not written", why=str(error), namespace=where[0], campaign=where[1])
            return
        memory.status_at = time.monotonic()
        memory.written = views.campaign(body)
        if started:
            self.again(Key(CAMPAIGN, *where), SOON)
        await self._tell(o, memory.written.status, memory)

    async def _tell(self, o: Observation, status: Status, memory: CampaignMemory) -> None:
        campaign, before = o.campaign, o.campaign.status
        news = events.of_change(before.conditions, status.conditions)
        news += events.of_retry(before.retried, status.retried, came_to_nobody(o))
        for event in news:
            known = memory.events.get(event.reason)
            told = memory.events[event.reason] = events.tell(event, known, campaign.name, campaign.uid, o.now)
            if told.written != o.now:
                continue
            try:
                await self._in_thread(
                    partial(self._cluster.tell, campaign.namespace, campaign.name, campaign.uid, told)
                )
            except ClusterError as error:
                log.info("an Event was not written", why=str(error))

    # --- relays ---------------------------------------------------------------------------------------
    async def _relay(self, name: Name) -> None:
        relay = self._observer.watched.relay(name)
        if relay is None or self._observer.watched.is_terminating(name[0]):
            if gone := self._observer.relay_memories.pop(name, None):
                self._tell_sharing(gone.sharing)
            return
        memory = self._observer.relay_memories.setdefault(name, RelayMemory())
        if (relay.generation, relay.sharing) != (memory.generation, memory.sharing):
            self._tell_sharing({*memory.sharing, *relay.sharing})
            memory.generation, memory.sharing = relay.generation, relay.sharing
        ledger, account = await self._publish(relay, memory)
        o = await self._observer.observe_relay(relay, account, ledger)
        planned = relay_plan.plan(o)
        refused = await self._in_thread(partial(self._hands.try_relay, o, planned.actions))
        if refused:
            planned = relay_plan.plan(o, refused)
        await self._write_relay_status(relay, planned.status, memory)
        if o.ledger_trouble or o.limiter_trouble or refused:
            self.again(Key(RELAY, *name), 5)
        if planned.due and planned.due != memory.wakes_at:
            memory.wakes_at = planned.due
            self.again(Key(RELAY, *name), max(SOON, (planned.due - o.now).total_seconds()))

    def _tell_sharing(self, relays: Iterable[str]) -> None:
        """What holds for relays that share an account, or did, changes with each of them."""
        for relay in relays:
            self.again(Key(RELAY, *relay.split("/")), 0)

    async def _publish(self, relay: RelayView, memory: RelayMemory) -> tuple[str, AccountState | None]:
        """Bring its settings to ledger and limiter if they may not have them.

        Returns:
            why the ledger does not answer, or nothing; and what the limiter has of the account.
        """
        if (settings := relay.relay) is None:
            return "", None
        trouble = ""
        if settings != memory.published or time.monotonic() - memory.published_at > PUBLISH_AGAIN_SECONDS:
            memory.published = None
            try:
                if await self._in_thread(lambda: self._hands.publish(relay)) is None:
                    memory.published, memory.published_at = settings, time.monotonic()
            except LedgerUnavailable as error:
                trouble = str(error)
        found = await self._in_thread(lambda: self._hands.survey([settings.account]))
        self._observer.limiter_trouble = self._hands.limiter_trouble
        return trouble, found.get(settings.account)

    async def _write_relay_status(self, relay: RelayView, after: dict[str, Any], memory: RelayMemory) -> None:
        """As a campaign's: if it changed, and at most every few seconds unless a condition did."""
        if after == relay.status:
            return
        wait = memory.status_at + self._settings.status_seconds - time.monotonic()
        if wait > 0 and not status.changed_in_kind(relay.status, after):
            self.again(Key(RELAY, relay.namespace, relay.name), wait)
            return
        patch = status.merge_patch(relay.status, after, None)
        try:
            await self._in_thread(lambda: self._cluster.patch_status(RELAYS, relay.namespace, relay.name, patch))
        except ObjectGoneError:
            return
        except ClusterError as error:
            log.warning("the status was not written", why=str(error), namespace=relay.namespace, relay=relay.name)
            return
        memory.status_at = time.monotonic()
