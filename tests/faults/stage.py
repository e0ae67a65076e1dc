"""The house of one worker: its own Postgres, Redis, sink, proxies and zygote, used for one run after another."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import psycopg2
from redis import Redis

from fleet import Fleet, Sender
from mailfleet_sender.contract import environment
from mailfleet_sender.contract.environment import Exit
from mailfleet_sender.contract.relay import Pipelining
from mailfleet_sender.ledger import migrate
from mailfleet_sender.smtp import Mode
from mailfleet_sender.smtp.engine import DEPTHS
from proxy import TcpProxy
from services import PostgresServer, RedisServer, wait_for
from sink import Sink

from .patched import CLOCK_KEY, STEPPED_CLOCK, copy_package
from .wire import PostgresProxy
from .zygote import Zygote

if TYPE_CHECKING:
    from pathlib import Path

    from .zygote import Child

HOSTILE = {"synchronous_commit": "off", "wal_writer_delay": "10s"}
"""A server that may lose acknowledged commits unless a transaction says otherwise."""

PIPELINING = "FAULTS_PIPELINING"
"""The environment variable that tells the workers the relay's setting of that name."""


def pipelining() -> str:
    """How the senders speak to the sink; only `Chunking` makes it offer that."""
    return os.environ.get(PIPELINING, "Auto")


def handed_over() -> int:
    """How many mails of a connection may be without the relay's answer after their end was written."""
    return DEPTHS[Mode.CHUNKING] if pipelining() == Pipelining.CHUNKING else 1


class Clock:
    """The clock that the limiter's script reads in this stage's Redis."""

    def __init__(self, redis: RedisServer) -> None:
        self._redis = redis

    def set(self, seconds: int) -> None:
        """So far from the true time, from now on."""
        with Redis.from_url(self._redis.url) as client:
            client.set(CLOCK_KEY, seconds)


@dataclass
class FaultyFleet(Fleet):
    """A fleet whose senders come from the zygote, and which goes on tending while the ledger is away.

    Attributes:
        impossible: (wave, index) whose sender said that it can never work; not started again.
    """

    zygote: Zygote | None = None
    impossible: set[tuple[int, int]] = field(default_factory=set)
    sender_ledger_url: str = ""
    sender_redis_url: str = ""

    def verb(self, verb: str, log: Path, **environ: str) -> Child:
        """Start a verb as a process."""
        assert self.zygote is not None
        return self.zygote.spawn(verb, self._environ() | environ, log)

    def spawn(self, wave: int, index: int) -> Sender:
        """One more sender for this range, whoever else has it."""
        self.started += 1
        log = self.folder / f"sender-{wave}-{index}-{self.started}.log"
        pod = f"pod-{wave}-{index}-{self.started}"
        names = {environment.WAVE: str(wave), environment.INDEX: str(index), environment.POD_NAME: pod}
        sender = Sender(index, wave, self.verb("send", log, **names), log)
        self.senders.append(sender)
        return sender

    def tend(self, parallelism: int) -> bool:
        """As the Job controller does: exit 78 fails an index for good."""
        for sender in self.senders:
            if sender.process.poll() == Exit.IMPOSSIBLE:
                self.impossible.add((sender.wave, sender.index))
        try:
            return super().tend(parallelism)
        except psycopg2.OperationalError:
            return True

    def open_ranges(self) -> list[tuple[int, int]]:
        """Those that somebody may work on."""
        return [r for r in super().open_ranges() if r not in self.impossible]

    def _environ(self) -> dict[str, str]:
        return super()._environ() | {
            environment.LEDGER_URL: self.sender_ledger_url or self.ledger_url,
            environment.REDIS_URL: self.sender_redis_url or self.redis_url,
        }


class Stage:
    """Services that live as long as the worker; a run that breaks one of them mends it."""

    def __init__(self, folder: Path) -> None:
        """Nothing is started yet; `folder` is for data and logs, and goes with the stage."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.postgres = PostgresServer(folder, **HOSTILE)
        self.redis = RedisServer(folder)
        self.clock = Clock(self.redis)
        self.sink = Sink(folder, *(["--chunking"] if pipelining() == Pipelining.CHUNKING else []))
        self._names = itertools.count(1)
        self._template = ""

    def __enter__(self) -> Self:
        for server in (self.postgres, self.redis, self.sink):
            server.start()
        self.zygote = Zygote(copy_package(self.folder / "sender", STEPPED_CLOCK))
        self._template = self.postgres.database()
        migrate(self._template)
        self.ledger_proxy = PostgresProxy(self.postgres.url("postgres"))
        self.redis_proxy = TcpProxy(self.redis.url)
        return self

    def __exit__(self, *_: object) -> None:
        self.ledger_proxy.close()
        self.redis_proxy.close()
        self.zygote.close()
        for server in (self.sink, self.redis, self.postgres):
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def fresh_database(self) -> str:
        """A database with the ledger's tables, empty; the one before goes."""
        name = f"run{next(self._names)}"
        with contextlib.closing(psycopg2.connect(self.postgres.url("postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT datname FROM pg_database WHERE datname LIKE 'run%'")
                for (old,) in cursor.fetchall():
                    cursor.execute(f"DROP DATABASE {old} WITH (FORCE)")
                cursor.execute(f"CREATE DATABASE {name} TEMPLATE {self._template.rpartition('/')[2]}")
        return self.postgres.url(name)

    def set_postgres(self, **settings: str | None) -> None:
        """Change settings of the running server (None: as before)."""
        with contextlib.closing(psycopg2.connect(self.postgres.url("postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SET default_transaction_read_only = off")
                for name, value in settings.items():
                    if value is None:
                        cursor.execute(f"ALTER SYSTEM RESET {name}")
                    else:
                        cursor.execute(f"ALTER SYSTEM SET {name} = %s", (value,))
                cursor.execute("SELECT pg_reload_conf()")

    def freeze_postgres(self, *, thaw: bool = False) -> None:
        """SIGSTOP (SIGCONT) to the server and all its children."""
        process = self.postgres.process
        assert process is not None
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
        for pid in [process.pid, *map(int, children.stdout.split())]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT if thaw else signal.SIGSTOP)

    def stop_postgres(self) -> None:
        """End the server at once (fast shutdown); its data stay."""
        assert self.postgres.process is not None
        self.postgres.process.send_signal(signal.SIGINT)
        self.postgres.process.wait(20)

    def save_postgres(self, copy: Path) -> None:
        """Copy the data of the stopped server."""
        shutil.copytree(self.postgres.folder / "data", copy, copy_function=_copy_with_owner)

    def restore_postgres(self, copy: Path) -> None:
        """Put an older copy in the place of the stopped server's data."""
        data = self.postgres.folder / "data"
        shutil.rmtree(data)
        copy.rename(data)
        if user := self.postgres._user():
            subprocess.run(["chown", "-R", user, str(data)], check=True)

    def reset(self) -> None:
        """What every run begins with: nobody remembers the run before."""
        self.ledger_proxy.disarm()
        self.ledger_proxy.delay_seconds = self.redis_proxy.delay_seconds = 0.0
        self.sink.behave()
        self.sink.reset()
        wait_for("Redis is empty", self._flushed)

    def _flushed(self) -> bool:
        self.redis.flush()
        return True


def _copy_with_owner(source: str, target: str) -> None:
    shutil.copy2(source, target)
