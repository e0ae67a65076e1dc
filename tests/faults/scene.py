"""One run: a campaign in full flight on the stage, with the hands that a blow needs."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg2
from sqlalchemy.exc import SQLAlchemyError

from books import BooksError, sample
from fleet import Sender, campaign, subscribers
from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.errors import LedgerUnavailable
from mailfleet_sender.ledger import Runs, open_ledger
from mailfleet_sender.ledger import Timing as LedgerTiming
from mailfleet_sender.planning import plan_run
from services import wait_for, whole_lines

from .stage import FaultyFleet, handed_over, pipelining

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Engine

    from mailfleet_sender.contract.campaign import Campaign
    from sink import Accepted

    from .stage import Stage

RECIPIENTS, RANGE = 1_500, 500
RATE = 600
"""Messages a second of the whole fleet: 2.5 s of sending, three ranges of one page."""
SENDERS, CONNECTIONS = 3, 4
TEND_SECONDS, SAMPLE_SECONDS = 0.1, 0.25


@dataclass(frozen=True, slots=True)
class Timing:
    """The sender's settings in a run, in seconds."""

    lease: float = 2.0
    margin: float = 0.7
    idle: float = 1.0
    statement: float = 5.0
    lock: float = 2.0
    smtp: float | None = 2.0

    @property
    def to_recover(self) -> float:
        """A killed sender's range is sending again within this."""
        return self.lease + self.margin + 5.0

    def environ(self) -> dict[str, str]:
        """As the sender reads them."""
        given = {"LEASE": self.lease, "MARGIN": self.margin, "IDLE": self.idle, "STATEMENT": self.statement,
                 "LOCK": self.lock, "SMTP_TIMEOUT": self.smtp}  # fmt: skip
        return {f"MAILFLEET_{name}_SECONDS": str(value) for name, value in given.items() if value is not None}


SCALED = Timing()
DEFAULTS = Timing(lease=15, margin=5, idle=5, statement=30, lock=10, smtp=None)


@dataclass(frozen=True, slots=True)
class Hit:
    """A blow.

    Attributes:
        at: unix seconds.
        index: of the range (in wave 1) whose sender it struck; None: all of them.
        claimed: it may leave in doubt what that sender has claimed.
    """

    at: float
    index: int | None
    claimed: bool


@dataclass
class Scene:
    """A run under way."""

    stage: Stage
    policy: str
    seed: int
    timing: Timing
    folder: Path
    recipients: int = RECIPIENTS
    rate: int = RATE
    parallelism: int = SENDERS
    proxied: bool = False
    environ: dict[str, str] = field(default_factory=dict)
    match: tuple[dict[str, object], ...] = ()
    hits: list[Hit] = field(default_factory=list)
    mended_at: float | None = None
    closing: bool = False
    samples: int = 0
    allowed: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    broken: Exception | None = None
    audience: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.tending, self._over = threading.Event(), threading.Event()
        self.tending.set()
        self._threads = [threading.Thread(target=self._tend), threading.Thread(target=self._sample)]
        self._seen = self._offset = 0
        self._engine: Engine | None = None
        self._snapshot: psycopg2.extensions.connection | None = None

    # --- from the table to full flight ----------------------------------------------------------------------
    def prepare(self) -> None:
        """A fresh database with its recipients; the run exists."""
        self.stage.reset()
        url = self.stage.fresh_database()
        subscribers(url, self.recipients)
        self.fleet = FaultyFleet(
            url, url, self.stage.redis.url, self.stage.sink, self.folder,
            rate=f"{self.rate}/s",
            definition=self.definition(),
            range_size=RANGE,
            environ=self.timing.environ() | self.environ,
            relay_changes={"connections": {"perSender": CONNECTIONS}, "pipelining": pipelining()},
            zygote=self.stage.zygote,
            sender_ledger_url=self.stage.ledger_proxy.through(url) if self.proxied else url,
            sender_redis_url=self.stage.redis_proxy.url if self.proxied else "",
        )  # fmt: skip
        self.fleet.limits()
        self.fleet.run = self.fleet.runs.ensure("test", "campaign", "1", self.fleet.definition).id

    def definition(self, subject: str = "{{ first_name }}, our news") -> Campaign:
        """The campaign; another subject is another definition."""
        spec = campaign().model_dump(mode="json", by_alias=True, exclude_defaults=True)
        spec["message"]["subject"] = subject
        spec["recipients"]["table"]["match"] = list(self.match)
        return campaign(**spec, onUncertain=self.policy, retry={"initialDelaySeconds": 0})

    def start(self) -> None:
        """Plan, open the run, and keep it manned and watched from now on."""
        self.plan()
        self.open()

    def plan(self) -> None:
        """Plan it here, without a process."""
        code = plan_run(self.fleet.engine, run=self.fleet.run, database_url=self.fleet.database_url, reporter="planner")
        assert code == 0, f"the plan ended with {code}"

    def open(self) -> None:
        """START, then man it."""
        self.audience = self.fleet.audience()
        assert self.fleet.runs.start(self.fleet.run, self.fleet.definition.definition_hash(), RANGE)
        for thread in self._threads:
            thread.start()

    def moment(self, low: float = 0.08, high: float = 0.55) -> None:
        """Wait for a seeded moment: so many accepted, and some milliseconds."""
        share = self.random.uniform(low, high)
        wait_for(
            f"{share:.0%} accepted", lambda: self.accepted_now() >= share * self.recipients, seconds=90, interval=0.01
        )
        time.sleep(self.random.uniform(0, 0.06))  # the seeded moment itself

    def pause(self, low: float, high: float | None = None) -> float:
        """Let a fault last for a seeded time in seconds."""
        seconds = self.random.uniform(low, high if high is not None else low)
        time.sleep(seconds)
        return seconds

    def accepted_now(self) -> int:
        """What the oracle has accepted, from its file."""
        with contextlib.suppress(FileNotFoundError), self.stage.sink.log.open("rb") as log:
            log.seek(self._offset)
            data = log.read()
            self._offset += len(data)
            self._seen += data.count(b"\n")
        return self._seen

    # --- what blows use --------------------------------------------------------------------------------------
    def hit(self, sender: Sender | None = None, *, claimed: bool = True) -> None:
        """Note a blow on this sender (None: on something else that holds all of them up, `claimed` False)."""
        self.hits.append(Hit(time.time(), sender.index if sender else None, claimed and sender is not None))

    def allow(self, count: int) -> None:
        """The blow may leave so many more in doubt."""
        self.allowed += count

    def allow_in_flight(self) -> None:
        """It may cut what is on its way to the relay: one mail a connection, of each sender; by chunking, eight."""
        self.allow(CONNECTIONS * self.parallelism * handed_over())

    def mended(self) -> None:
        """Note that what was away is back: recovery counts from here."""
        self.mended_at = time.time()

    def victim(self) -> Sender:
        """A sender that has its range and is at work, drawn by the seed."""
        return self.random.choice(wait_for("a sender is at work", self.at_work))

    def busiest(self) -> Sender:
        """The sender that has the most left to claim: it will not have ended before a blow has fallen."""
        return wait_for("a sender is at work", self.at_work)[0]

    def at_work(self) -> list[Sender]:
        """Senders of the main wave that live and own a range with something left to claim, the most first."""
        rows = self.sql(
            "SELECT idx FROM range WHERE run = %s AND wave = 1 AND state = 'Open' AND owner IS NOT NULL"
            " AND pos > 0 AND (pos < planned OR open <> '{}') ORDER BY planned - pos DESC", self.fleet.run,
        )  # fmt: skip
        alive = {s.index: s for s in list(self.fleet.senders) if s.wave == 1 and s.process.poll() is None}
        return [alive[index] for (index,) in rows if index in alive]

    def proxied_runs(self) -> Runs:
        """The operator's hand by way of the proxy, with this run's timing."""
        url = self.stage.ledger_proxy.through(self.fleet.ledger_url)
        self._engine = open_ledger(url, application_name="operator", pool_size=2)
        timing = LedgerTiming(lease_seconds=self.timing.lease, margin_seconds=self.timing.margin)
        return Runs(self._engine, timing)

    def hold_snapshot(self) -> None:
        """Open a REPEATABLE READ transaction that has looked; it ends with the run."""
        self._snapshot = psycopg2.connect(self.fleet.ledger_url)
        self._snapshot.set_session(isolation_level="REPEATABLE READ")
        with self._snapshot.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM range")

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """One statement on the run's database, past everything; waits for a server that is away."""

        def ask() -> tuple[list[tuple[Any, ...]]] | None:
            try:
                with contextlib.closing(psycopg2.connect(self.fleet.ledger_url)) as connection:
                    connection.autocommit = True
                    with connection.cursor() as cursor:
                        cursor.execute(statement, values or None)
                        return (cursor.fetchall() if cursor.description else [],)
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                return None

        return wait_for("the ledger answers", ask, seconds=90)[0]

    # --- to the end ------------------------------------------------------------------------------------------
    def finish(self, *, seconds: float = 90) -> None:
        """Until nothing is owed: every range has ended, what was deferred was tried again, late outcomes are in."""
        self._until("every range has ended", self._nothing_owed, seconds=seconds)
        self._until("no sender is left", lambda: not self.fleet.senders, seconds=seconds)
        runs, run = self.fleet.runs, self.fleet.run
        runs.absorb_late(run)
        if not self.closing:
            assert runs.complete(run), f"the run does not complete: {self.fleet.totals}"

    def _until(self, what: str, probe: Callable[[], bool], *, seconds: float) -> None:
        def answer() -> bool:
            if self.broken:
                raise self.broken
            return probe()

        wait_for(what, answer, seconds=seconds)

    def _nothing_owed(self) -> bool:
        if self.fleet.open_ranges():
            return False
        if self.closing:
            return True
        try:
            return not self.fleet.runs.retry_wave(self.fleet.run, RANGE) and not self.fleet.totals.deferred
        except LedgerUnavailable:
            return False

    def stop(self) -> None:
        """No more tending; every process of the run is gone."""
        self._over.set()
        for thread in self._threads:
            if thread.ident:
                thread.join(30)
        for sender in self.fleet.senders:
            sender.process.send_signal(signal.SIGCONT)
            sender.process.kill()
            sender.process.wait(10)
        self.fleet.engine.dispose()
        if self._engine is not None:
            self._engine.dispose()
        if self._snapshot is not None:
            self._snapshot.close()

    def _tend(self) -> None:
        while not self._over.wait(TEND_SECONDS):
            if self.tending.is_set():
                self.fleet.tend(self.parallelism)

    def _sample(self) -> None:
        """The sum, all along; while the ledger is away there is nothing to look at."""
        while not self._over.wait(SAMPLE_SECONDS):
            try:
                sample(self.fleet.ledger_url, self.fleet.run)
                self.samples += 1
            except (psycopg2.OperationalError, psycopg2.InterfaceError, SQLAlchemyError):
                continue
            except BooksError as error:
                self.broken = error
                return

    # --- for the judge ---------------------------------------------------------------------------------------
    def doubted(self) -> set[str]:
        """Keys that the ledger named uncertain at any time."""
        rows = self.sql(
            "SELECT DISTINCT key FROM delivery WHERE run = %s AND outcome = %s",
            self.fleet.run, OutcomeKind.UNCERTAIN.value,
        )  # fmt: skip
        return {key for (key,) in rows}

    def accepted(self) -> list[Accepted]:
        """The oracle's own list, from its file."""
        return self.stage.sink.accepted()

    def acquired(self, index: int) -> list[float]:
        """When senders took this range of the main wave, unix seconds, by their own logs."""
        lines = [line for log in self.folder.glob(f"sender-1-{index}-*.log") for line in whole_lines(log)]
        return [
            datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp()
            for line in lines
            if '"range acquired"' in line
        ]

    def index_of(self, key: str) -> int:
        """The range of the main wave that a key was planned into: keys are planned in order, 500 a range."""
        return (int(key) - 1) // RANGE
