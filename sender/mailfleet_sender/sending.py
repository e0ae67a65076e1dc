"""The verb `send`: one pod, one range, from the first lease to the last record."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

import structlog
import uvloop
from prometheus_client import CollectorRegistry

from .composing import composer_of
from .connecting import connector_of
from .contract.accounts import ReportReason
from .contract.environment import Exit
from .delivery.lease import keep_lease
from .delivery.loop import Delivery
from .delivery.pool import Pool
from .delivery.reader import Reader
from .delivery.recorder import Recorder
from .delivery.suppression import Suppression
from .delivery.tally import Tally
from .delivery.threads import Thread
from .delivery.trouble import Trouble
from .errors import Fenced, LedgerRewound, LedgerUnavailable, LimiterUnavailable, RelayUnavailable
from .exposition import serve
from .ledger import (
    AddressHasher,
    Ended,
    Leased,
    OwnedRange,
    Timing,
    load_address_key,
    load_campaign,
    load_relay,
    open_ledger,
    usage_since,
)
from .limiter import USAGE_LOOK_BACK, AccountLimits, Limiter, open_limiter, seed_limits, seed_usage
from .metrics import SenderMetrics
from .smtp import Modes
from .sourcing import audience_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import redis.asyncio

    from .contract.relay import Relay
    from .settings import SendSettings
    from .smtp import Connection, Connector

DRAIN_MARGIN_SECONDS = 5.0
"""The drain ends this long before the kubelet's SIGKILL (DESIGN section 5, invariant 7)."""
GARBAGE_OBJECTS = 10_000
"""Next to nothing here is in a cycle, and looking for cycles each 700 objects took 5 % of the time (decision 0049)."""
RELAY_ROW_SECONDS = 5.0
"""How old the relay's settings may be when a connection is opened."""

T = TypeVar("T")
log = structlog.get_logger()


def send(settings: SendSettings) -> Exit:
    """Send one range; see `Exit` for what the number means to the Job."""
    gc.freeze()  # what the modules hold stays: it is never looked through again
    gc.set_threshold(GARBAGE_OBJECTS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Sender(settings).run())


def _peak_rss_kib() -> int:
    """Peak resident memory. Not getrusage: its figure survives exec, so a large parent would be counted."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0])


class _Sender:
    """The parts of one sender, put together."""

    def __init__(self, settings: SendSettings) -> None:
        self.settings = settings
        self.engine = open_ledger(settings.ledger_url, application_name=f"mailfleet-sender {settings.pod}", pool_size=2)
        self.ledger, self.database, self.side = Thread("ledger"), Thread("recipients"), Thread("side")
        self.trouble = Trouble(self.engine, self.side, run=settings.run, reporter=settings.pod)
        self.timing = Timing(**settings.timing)
        self.terminated = asyncio.Event()
        self.relay_row: tuple[Relay, int] | None = None
        self.relay_until = 0.0
        self.modes = Modes()
        self.connector: tuple[Relay, Connector] | None = None
        self.tally = Tally()
        self.registry = CollectorRegistry()

    async def run(self) -> Exit:
        """Acquire, deliver, drain."""
        serve(self.registry, self.settings.metrics_port)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.terminated.set)
        try:
            owned = await self._unless_terminated(self._acquire())
            if owned is None:
                return Exit.INTERRUPTED
            if isinstance(owned, Ended):
                return Exit.DONE
            log.info("range acquired", run=owned.run, range=owned.id, planned=owned.planned, position=owned.position)
            return await self._work(owned)
        except LedgerRewound as error:
            self.trouble.tell(ReportReason.LEDGER_REWOUND, f"the ledger lost what it had committed: {error}")
            await self.trouble.write()
            log.critical("the ledger lost what it had committed: nothing is sent", error=str(error))
            return Exit.IMPOSSIBLE

    async def _work(self, owned: OwnedRange) -> Exit:
        try:
            return await self._deliver(owned)
        finally:
            log.info(
                "sender ends",
                ended=owned.ended,
                lapsed_permits=self.tally.lapsed,
                peak_rss_kib=_peak_rss_kib(),
                cpu_seconds=round(time.process_time(), 3),
            )

    # --- the range --------------------------------------------------------------------------------
    async def _acquire(self) -> OwnedRange | Ended:
        """Wait until the range can be owned, or find that it has ended."""
        owner, delay = uuid4(), 0.5
        while True:
            try:
                relay, _ = await self._relay()
                answer = await self.ledger.run(
                    OwnedRange.acquire,
                    self.engine,
                    run=self.settings.run,
                    wave=self.settings.wave,
                    index=self.settings.index,
                    owner=owner,
                    timing=self.timing,
                    account=relay.account,
                )
            except LedgerUnavailable as error:
                log.warning("ledger unavailable", error=str(error), again_in_seconds=delay)
                await asyncio.sleep(delay)
                delay = min(10.0, delay * 2)
                continue
            if not isinstance(answer, Leased):
                return answer
            log.info("range is leased", seconds=answer.seconds)
            await asyncio.sleep(answer.seconds)

    async def _deliver(self, owned: OwnedRange) -> Exit:
        async with AsyncExitStack() as stack:
            delivery, recorder, tasks = await self._assemble(owned, stack)
            work = asyncio.create_task(delivery.run())
            stop = asyncio.create_task(self._termination())
            tasks |= {work, stop}
            try:
                await self._first_end(tasks, {work, stop})
                delivery.stop()
                await self._drain(owned, delivery, recorder)
                await delivery.leave()
            except Fenced as error:
                delivery.abort()
                log.warning("fenced: another sender owns the range", error=str(error))
                await self.ledger.run(owned.leave_late, recorder.unrecorded)
                os._exit(Exit.INTERRUPTED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            await self.trouble.write()
        return Exit.DONE if owned.ended else Exit.INTERRUPTED

    @staticmethod
    async def _first_end(tasks: set[asyncio.Task[None]], ends: set[asyncio.Task[None]]) -> None:
        """Until one of `ends` ends; an error of any task is raised here."""
        tasks = set(tasks)
        while True:
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if done & ends:
                return

    async def _drain(self, owned: OwnedRange, delivery: Delivery, recorder: Recorder) -> None:
        """Account for all that was begun, give back the rest."""
        grace = max(0.0, self.settings.grace_seconds - DRAIN_MARGIN_SECONDS)
        try:
            async with asyncio.timeout(grace):
                await delivery.in_flight_ended()
        except TimeoutError:
            delivery.abort()
            await delivery.in_flight_ended()
        await recorder.flush()
        if not owned.ended:
            await self.ledger.run(owned.drain)

    # --- its parts --------------------------------------------------------------------------------
    async def _assemble(
        self, owned: OwnedRange, stack: AsyncExitStack
    ) -> tuple[Delivery, Recorder, set[asyncio.Task[None]]]:
        snapshot = await self.ledger.run(load_campaign, self.engine, owned.run)
        campaign = snapshot.campaign
        relay, _ = await self._relay()
        hasher = AddressHasher(await self.ledger.run(load_address_key, self.engine))
        composer = composer_of(snapshot)
        audience = audience_of(
            campaign.recipients,
            composer.columns,
            run=owned.run,
            database_url=self.settings.database_url,
            ledger_url=self.settings.ledger_url,
            application_name=f"mailfleet-sender {self.settings.pod}",
        )
        client = open_limiter(self.settings.redis_url)
        stack.push_async_callback(client.aclose)
        limiter = Limiter(
            client,
            account=relay.account,
            campaign=f"{snapshot.namespace}/{snapshot.name}",
            pod=self.settings.pod,
            seed=lambda: self._seed(client),
            usage=lambda: self._seed_usage(client),
            limited=relay.domain_rates,
        )
        pool = Pool(self._connect, relay.connections.per_sender, self.trouble)
        stack.push_async_callback(pool.close)
        progress = asyncio.Event()
        recorder = Recorder(owned, self.ledger, tally=self.tally, recorded=progress.set)
        whose = {"namespace": snapshot.namespace, "emailcampaign": snapshot.name, "relay": self.settings.relay_name}
        self.registry.register(SenderMetrics(whose, self.tally, pool))
        reader = Reader(
            returned=owned.returned,
            position=owned.position,
            planned=owned.planned,
            page_keys=lambda positions: self.ledger.run(owned.recipients, positions),
            audience=audience,
            database=self.database,
            suppression=Suppression(self.engine, self.side, hasher=hasher, namespace=snapshot.namespace),
            trouble=self.trouble,
            retry=campaign.retry,
        )
        delivery = Delivery(
            owned=owned,
            ledger=self.ledger,
            reader=reader,
            limiter=limiter,
            pool=pool,
            composer=composer,
            recorder=recorder,
            retry=campaign.retry,
            trouble=self.trouble,
            progress=progress,
            tally=self.tally,
        )
        background = (
            reader.read(),
            reader.look_again(),
            recorder.run(),
            keep_lease(owned, self.ledger, delivery, self.timing.lease_seconds),
            self.trouble.keep_telling(),
        )
        return delivery, recorder, {asyncio.create_task(task) for task in background}

    async def _relay(self) -> tuple[Relay, int]:
        """The relay's row and its version; the one read before stands in for it while the ledger is away.

        Raises:
            LedgerUnavailable: it was never read, and cannot be now.
            LedgerRewound: there is no such row, though the operator wrote it before the Job.
        """
        if self.relay_row and time.monotonic() < self.relay_until:
            return self.relay_row
        try:
            found = await self.side.run(
                load_relay, self.engine, self.settings.relay_namespace, self.settings.relay_name
            )
        except LedgerUnavailable:
            if self.relay_row is None:
                raise
        except LookupError as error:
            raise LedgerRewound(str(error)) from None
        else:
            self.relay_row = found
        self.relay_until = time.monotonic() + RELAY_ROW_SECONDS
        return self.relay_row

    async def _seed(self, client: redis.asyncio.Redis | redis.asyncio.RedisCluster) -> None:
        """Redis came back empty: write the limits again from their truth."""
        relay, version = await self._relay()
        await seed_limits(client, relay.account, version, AccountLimits.of(relay))

    async def _seed_usage(self, client: redis.asyncio.Redis | redis.asyncio.RedisCluster) -> None:
        """Redis has lost what is used of the quota: the ledger knows."""
        relay, _ = await self._relay()
        since = datetime.now(UTC) - USAGE_LOOK_BACK
        try:
            usage = await self.side.run(usage_since, self.engine, relay.account, since)
        except LedgerUnavailable as error:
            raise LimiterUnavailable(
                f"Redis has lost what is used of the quota, and the ledger cannot tell: {error}"
            ) from error
        await seed_usage(client, relay.account, usage)

    async def _connect(self) -> Connection:
        relay, _ = await self._relay()
        if self.connector is None or self.connector[0] != relay:
            self.connector = (relay, connector_of(relay, self.settings.smtp, self.modes))
        try:
            return await self.connector[1].connect()
        except RelayUnavailable:
            self.connector = None  # its certificates may have been mended meanwhile: read them again
            raise

    async def _termination(self) -> None:
        await self.terminated.wait()

    async def _unless_terminated(self, work: Awaitable[T]) -> T | None:
        """The result of `work`, or None when SIGTERM came first."""
        task = asyncio.ensure_future(work)
        stop = asyncio.create_task(self._termination())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            return None
        return task.result()
