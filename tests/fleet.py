"""A fleet of real sender processes without a cluster: what the operator and the Job controller do, by hand.

A `Fleet` holds one campaign on real Postgres, Redis and the oracle sink. Senders are child processes of
the installed command line, one for each open range, at most `parallelism` at once, replaced when they die.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import psycopg2
import redis

from mailfleet_sender.contract import environment
from mailfleet_sender.contract.campaign import Campaign
from mailfleet_sender.contract.relay import Relay
from mailfleet_sender.ledger import Runs, migrate, open_ledger, save_relay
from mailfleet_sender.limiter import AccountLimits, LimiterAdmin
from services import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from mailfleet_sender.contract.accounts import Totals
    from sink import Sink

NAMESPACE, NAME = "test", "campaign"
TEXT = "Hello {{ first_name }},\n\nthis is our news.\n"


def subscribers(database_url: str, count: int) -> None:
    """Make the table `subscribers` (id bigint, email, first_name) with `count` rows."""
    with contextlib.closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE subscribers (id bigint PRIMARY KEY, email text, first_name text)")
        cursor.execute(
            "INSERT INTO subscribers"
            " SELECT g, 'user' || g || '@example.net', 'Name ' || g FROM generate_series(1, %s) g",
            (count,),
        )


def campaign(**changes: Any) -> Campaign:
    """The definition that the fleet sends, as a manifest would say it."""
    spec: dict[str, Any] = {
        "recipients": {"table": {"name": "subscribers"}},
        "message": {
            "from": "Example Shop <news@example.com>",
            "subject": "{{ first_name }}, our news",
            "text": TEXT,
        },
    }
    return Campaign.model_validate({**spec, **changes})


@dataclass
class Sender:
    """One child process and the range it works on."""

    index: int
    wave: int
    process: subprocess.Popen[bytes]
    log: Path


@dataclass
class Fleet:
    """One campaign and its senders.

    Attributes:
        ledger_url, database_url, redis_url: the real services (ledger and recipients may be one database).
        sink: the oracle.
        rate: the relay's limit, as manifests write it.
        folder: where logs go.
        environ: further environment variables for the senders.
    """

    ledger_url: str
    database_url: str
    redis_url: str
    sink: Sink
    folder: Path
    rate: str = "1000/s"
    definition: Campaign = field(default_factory=campaign)
    range_size: int = 1000
    environ: dict[str, str] = field(default_factory=dict)
    relay_changes: dict[str, Any] = field(default_factory=dict)
    senders: list[Sender] = field(default_factory=list)
    ended: list[tuple[Sender, int]] = field(default_factory=list)
    run: int = 0
    run_id: str = "1"
    started: int = 0

    def __post_init__(self) -> None:
        migrate(self.ledger_url)
        self.engine = open_ledger(self.ledger_url, application_name="test", pool_size=4)
        self.runs = Runs(self.engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sender in self.senders:
            sender.process.kill()
            sender.process.wait()
        self.engine.dispose()

    # --- the operator's part ----------------------------------------------------------------------
    def relay(self) -> Relay:
        """The relay as the operator writes it down."""
        return Relay.model_validate(
            {
                "namespace": NAMESPACE,
                "name": "relay",
                "host": "127.0.0.1",
                "port": self.sink.port,
                "tls": {"mode": "None"},
                "limits": {"rate": self.rate},
                **self.relay_changes,
            }
        )

    def limits(self) -> None:
        """Write relay and limits, as the operator does when a relay appears or changes."""
        relay = self.relay()
        version = save_relay(self.engine, relay)
        with redis.Redis.from_url(self.redis_url) as client:
            LimiterAdmin(client).write_limits(relay.account, version, AccountLimits.of(relay))

    def plan(self) -> subprocess.CompletedProcess[bytes]:
        """Make the run and plan it with the real verb, as the plan Job does."""
        self.limits()
        row = self.runs.ensure(NAMESPACE, NAME, self.run_id, self.definition)
        self.run = row.id
        return subprocess.run(
            [sys.executable, "-m", "mailfleet_sender", "plan"],
            env=self._environ(),
            capture_output=True,
            timeout=120,
            check=False,
        )

    def start(self) -> None:
        """Plan, and open the run with its first wave.

        Raises:
            AssertionError: the planner failed; its output is in the message.
        """
        done = self.plan()
        assert done.returncode == 0, done.stderr.decode()
        assert self.runs.start(self.run, self.definition.definition_hash(), self.range_size)

    @property
    def totals(self) -> Totals:
        """The run's books now; the sum is checked at each look."""
        totals = self.runs.totals([self.run])[self.run]
        assert totals.adds_up, totals
        return totals

    def open_ranges(self) -> list[tuple[int, int]]:
        """(wave, index) of each range that still owes something."""
        with contextlib.closing(psycopg2.connect(self.ledger_url)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT wave, idx FROM range WHERE run = %s AND state = 'Open' ORDER BY wave, idx", (self.run,)
            )
            return cursor.fetchall()

    # --- the Job controller's part ----------------------------------------------------------------
    def _environ(self) -> dict[str, str]:
        keep = {k: v for k, v in os.environ.items() if k in {"PATH", "LANG", "HOME", "PYTHONDONTWRITEBYTECODE"}}
        return keep | {
            "PYTHONPATH": os.pathsep.join(sys.path),
            environment.LEDGER_URL: self.ledger_url,
            environment.REDIS_URL: self.redis_url,
            environment.DATABASE_URL: self.database_url,
            environment.RUN: str(self.run),
            environment.POD_NAME: "planner",
            environment.RELAY: f"{NAMESPACE}/relay",
            **self.environ,
        }

    def spawn(self, wave: int, index: int) -> Sender:
        """Start one sender for one range."""
        self.started += 1
        log = self.folder / f"sender-{wave}-{index}-{self.started}.log"
        environ = self._environ() | {
            environment.WAVE: str(wave),
            environment.INDEX: str(index),
            environment.POD_NAME: f"pod-{wave}-{index}-{self.started}",
        }
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "mailfleet_sender", "send"], env=environ, stdout=out, stderr=out
            )
        sender = Sender(index, wave, process, log)
        self.senders.append(sender)
        return sender

    def tend(self, parallelism: int) -> bool:
        """Reap the dead, replace them, start what is missing.

        Returns:
            whether ranges are left to send.
        """
        for sender in list(self.senders):
            if (code := sender.process.poll()) is not None:
                self.senders.remove(sender)
                self.ended.append((sender, code))
        left = self.open_ranges()
        at_work = {(s.wave, s.index) for s in self.senders}
        for wave, index in left:
            if len(self.senders) >= parallelism:
                break
            if (wave, index) not in at_work:
                self.spawn(wave, index)
        return bool(left) or bool(self.senders)

    def work(self, parallelism: int, *, seconds: float = 120) -> None:
        """Tend the fleet until every range has ended."""
        wait_for("every range has ended", lambda: not self.tend(parallelism), seconds=seconds)

    def terminate(self, *, seconds: float = 70) -> list[int]:
        """SIGTERM to all, as a suspended Job does; their exit codes."""
        for sender in self.senders:
            sender.process.send_signal(signal.SIGTERM)
        codes = []
        for sender in self.senders:
            codes.append(sender.process.wait(seconds))
            self.ended.append((sender, codes[-1]))
        self.senders.clear()
        return codes

    # --- the books against the oracle ----------------------------------------------------------------
    def doubts(self) -> set[str]:
        """Keys that the ledger names as uncertain."""
        with contextlib.closing(psycopg2.connect(self.ledger_url)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT DISTINCT d.key FROM delivery d WHERE d.run = %s AND d.outcome = 'uncertain'", (self.run,)
            )
            return {str(key) for (key,) in cursor.fetchall()}

    def audience(self) -> dict[str, str]:
        """key -> address, by a SELECT of the test's own."""
        with contextlib.closing(psycopg2.connect(self.database_url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT id::text, email FROM subscribers")
            return dict(cursor.fetchall())

    def accepted(self) -> dict[str, int]:
        """address -> how often the oracle accepted a mail for it."""
        counts: dict[str, int] = {}
        for message in self.sink.accepted():
            counts[message.recipient] = counts.get(message.recipient, 0) + 1
        return counts

    def held_against_the_oracle(self) -> dict[str, int]:
        """Lost: never arrived and not named uncertain. Duplicates: arrived more than once."""
        accepted, doubts = self.accepted(), self.doubts()
        lost = [k for k, address in self.audience().items() if address not in accepted and k not in doubts]
        return {"lost": len(lost), "duplicates": sum(n - 1 for n in accepted.values()), "doubted": len(doubts)}

    def sender_lines(self, event: str) -> list[dict[str, Any]]:
        """Log lines of all senders with this event."""
        found = []
        for log in sorted(self.folder.glob("sender-*.log")):
            for line in log.read_text().splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    entry = json.loads(line)
                    if entry.get("event") == event:
                        found.append(entry)
        return found
