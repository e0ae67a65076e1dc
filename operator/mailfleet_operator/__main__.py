"""The operator's process: settings, logging, kopf, the queue and the tick, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import kopf
import structlog
from prometheus_client import CollectorRegistry
from sqlalchemy.exc import SQLAlchemyError

from mailfleet_sender.errors import LedgerUnavailable
from mailfleet_sender.errors import SettingsError as LedgerSettingsError
from mailfleet_sender.exposition import serve
from mailfleet_sender.limiter import LimiterAdmin, open_limiter_admin

from . import handlers
from .apply import Hands
from .batching import Batched
from .cluster import Cluster
from .errors import SettingsError
from .housekeeping import keep_house
from .ledger import Ledger, RelayFacts, RelayKey, RunKey
from .metrics import OperatorMetrics
from .observe import Observer, Watched
from .queue import WorkQueue
from .reconcile import CAMPAIGN, NAMESPACE, RELAY, Key, Reconciler
from .settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .observation import LedgerView

WORKERS = 8
LEDGER_CONNECTIONS = 4
LEDGER_SECONDS = 10.0
"""How often the ledger is asked whether it is there."""
SLOW_SECONDS = 60.0
"""How often campaigns that are over, and relays, are looked at again."""
HEALTHY_SECONDS = 60.0
"""A tick older than this means that the event loop hangs: the probe fails, and Kubernetes starts anew."""

log = structlog.get_logger()


class Operator:
    """All parts, put together."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._executor = ThreadPoolExecutor(WORKERS, thread_name_prefix="hand")
        self._registry = kopf.get_default_registry()
        self._ticked_at = time.monotonic()
        self._metrics_registry = CollectorRegistry()
        self._metrics = OperatorMetrics(self._metrics_registry)
        self._ledger = Ledger.connect(settings.ledger_url, connections=LEDGER_CONNECTIONS)
        self._cluster = Cluster.connect(WORKERS)
        limiter = LimiterAdmin(open_limiter_admin(settings.redis_url))
        self._hands = Hands(self._ledger, limiter, self._cluster, settings)

    async def run(self) -> None:
        """Until SIGTERM or SIGINT, which kopf takes."""
        handlers.index(self._registry, self._settings.shared_accounts)
        serve(self._metrics_registry, self._settings.metrics_port)
        options = kopf.OperatorSettings()
        handlers.configure(options)
        started = asyncio.Event()

        @kopf.on.startup(registry=self._registry)
        async def prepare(**indices: Any) -> None:
            self._prepare(handlers.watched(indices, self._settings.shared_accounts))
            started.set()

        @kopf.on.probe(registry=self._registry)
        async def tick(**_: Any) -> float:
            age = time.monotonic() - self._ticked_at
            if age > HEALTHY_SECONDS:
                raise kopf.PermanentError(f"no tick for {age:.0f} s")
            return age

        handlers.watch(self._registry, self._add, lambda: self._observer.watched)
        work = asyncio.create_task(self._work(started))
        watch = asyncio.create_task(
            kopf.operator(
                registry=self._registry,
                settings=options,
                standalone=True,
                clusterwide=not self._settings.namespaces,
                namespaces=self._settings.namespaces,
                liveness_endpoint=f"http://0.0.0.0:{self._settings.health_port}/healthz",
            )
        )
        done, pending = await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        self._executor.shutdown(wait=False, cancel_futures=True)
        for task in done:
            task.result()

    def _prepare(self, watched: Watched) -> None:
        self._observer = Observer(watched, Batched(self._fetch), Batched(self._fetch_relays), self._settings)
        self._reconciler = Reconciler(self._observer, self._hands, self._cluster, self._settings, self._executor)
        self._queue: WorkQueue[Key] = WorkQueue(self._metrics.timed(self._reconciler.look), workers=WORKERS)
        self._reconciler.again = self._add_later
        self._metrics.queue.set_function(lambda: self._queue.depth)
        memories = self._observer.memories
        self._metrics.campaigns = lambda: {name: m.shown for name, m in list(memories.items()) if m.shown}

    async def _fetch(self, keys: Sequence[RunKey]) -> Mapping[RunKey, LedgerView]:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._ledger.read, keys)

    async def _fetch_relays(self, keys: Sequence[RelayKey]) -> Mapping[RelayKey, RelayFacts]:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._ledger.read_relays, keys)

    def _add(self, key: Key) -> None:
        self._queue.add(key)

    def _add_later(self, key: Key, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._queue.add, key)

    async def _work(self, started: asyncio.Event) -> None:
        await started.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._queue.run())
            group.create_task(self._tick())
            group.create_task(self._watch_ledger())
            group.create_task(keep_house(self._ledger, self._settings.retention_months, self._executor))

    async def _watch_ledger(self) -> None:
        """Also where no campaign asks it: whether it answers."""
        while True:
            try:
                await asyncio.get_running_loop().run_in_executor(self._executor, self._ledger.ping)
            except (LedgerUnavailable, SQLAlchemyError):  # such as a schema or a role that is not right yet
                self._metrics.ledger_answers(up=False)
            else:
                self._metrics.ledger_answers(up=True)
            await asyncio.sleep(LEDGER_SECONDS)

    async def _tick(self) -> None:
        """Put what is under way onto the queue, again and again; what is over, once a minute."""
        slow_at = time.monotonic() + SLOW_SECONDS
        relays_at = 0.0
        while True:
            await asyncio.sleep(self._settings.tick_seconds)
            self._ticked_at = time.monotonic()
            slow = self._ticked_at >= slow_at
            if slow:
                slow_at = self._ticked_at + SLOW_SECONDS
            await self._reconciler.survey()
            watched, memories = self._observer.watched, self._observer.memories
            self._show(watched)
            for name in list(memories):
                if slow or not memories[name].ended:
                    self._add(Key(CAMPAIGN, *name))
            relays = set(watched.relays) if slow else set()
            if self._ticked_at >= relays_at:
                relays_at = self._ticked_at + self._settings.status_seconds
                relays |= self._observer.relays_in_use()
            for name in relays:
                self._add(Key(RELAY, *name))
            for namespace in {n for n, _ in list(watched.jobs) if watched.is_terminating(n)}:
                self._add(Key(NAMESPACE, namespace))

    def _show(self, watched: Watched) -> None:
        """What metrics tell of relays and of the limiter."""
        found = {name: watched.relay(name) for name in list(watched.relays)}
        self._metrics.relays = {name: relay for name, relay in found.items() if relay}
        self._metrics.accounts = self._observer.accounts
        self._metrics.limiter_answers(up=self._observer.limiter_trouble is None)


def configure_logging(level: str) -> None:
    """JSON lines on stderr, kopf's and ours alike."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLevelName(level)))
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def main() -> None:
    """Entry point of `mailfleet-operator` and `python -m mailfleet_operator`."""
    try:
        settings = Settings.read(os.environ)
        configure_logging(settings.log_level)
        operator = Operator(settings)
    except (SettingsError, LedgerSettingsError) as error:
        sys.exit(f"mailfleet-operator: {error}")
    asyncio.run(operator.run())


if __name__ == "__main__":
    main()
