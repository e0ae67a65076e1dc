"""Postgres and Redis as private processes, and waiting with a deadline.

Both run in a folder of their own, on a free port of loopback; as root, Postgres runs as the system's
`postgres` user, which the Debian package makes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import psycopg2
import redis

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from certificates import Certificates

T = TypeVar("T")

PATIENCE = 4
"""What a quiet machine needs at most, a test names; a busy one is given so many times that. It costs nothing where
things work."""


def whole_lines(log: Path) -> list[str]:
    """The lines of a file that somebody may still be writing: without a last one that is only half there."""
    *lines, _half = log.read_text().split("\n")
    return lines


def wait_for(what: str, probe: Callable[[], T | None], *, seconds: float = 30, interval: float = 0.05) -> T:
    """Ask `probe` until it gives something true; a deadline, never a sleep for luck.

    Args:
        seconds: what a quiet machine needs at most; see `PATIENCE`.

    Raises:
        TimeoutError: `what` did not come true; the last answer is in the message.
    """
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what} (last answer: {answer!r})")
        time.sleep(interval)


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


class _Server:
    """A child process in a folder of its own."""

    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """End it politely, then for good."""
        self.signal(signal.SIGINT)
        if self.process:
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        if self.process:
            self.process.wait()

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it lives."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _postgres_binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    if found:
        return found[-1]
    if initdb := shutil.which("initdb"):
        return Path(initdb).parent
    raise RuntimeError(
        "no Postgres server found: install the Debian package postgresql, or run `make packages` as root"
    )


class PostgresServer(_Server):
    """A private Postgres cluster.

    Attributes:
        port: on 127.0.0.1; superuser `postgres`, no password.
    """

    def __init__(self, folder: Path, *, certificates: Certificates | None = None, **settings: str) -> None:
        """Not started yet.

        Args:
            folder: for its data, unless as root.
            certificates: if given, it takes TCP connections with TLS only, as `localhost`.
            settings: of postgresql.conf.
        """
        # The postgres user must be able to reach the data: pytest's own folders are closed to others.
        self.folder = Path(tempfile.mkdtemp(prefix="mailfleet-pg-")) if os.geteuid() == 0 else folder
        self.port = free_port()
        self.settings = {
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": "200",
            "shared_buffers": "64MB",
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            **settings,
        }
        self.folder.mkdir(exist_ok=True)
        self.binaries = _postgres_binaries()
        self.names = itertools.count()
        self.certificates = certificates

    def _user(self) -> str | None:
        if os.geteuid() != 0:
            return None
        pwd.getpwnam("postgres")
        return "postgres"

    def start(self) -> None:
        """Start it (making the cluster first) and wait until it answers."""
        data = self.folder / "data"
        if not data.exists():
            if user := self._user():
                shutil.chown(self.folder, user)
            subprocess.run(
                [
                    self.binaries / "initdb",
                    "-D",
                    data,
                    "-U",
                    "postgres",
                    "-A",
                    "trust",
                    "-E",
                    "UTF8",
                    "--no-sync",
                    "--locale=C.UTF-8",
                ],
                check=True,
                stdout=subprocess.DEVNULL,
                user=self._user(),
                cwd=self.folder,
            )
        if self.certificates:
            self._speak_tls_only(data)
        options = [x for k, v in self.settings.items() for x in ("-c", f"{k}={v}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binaries / "postgres", "-D", data, "-p", str(self.port), *options],
                stdout=log,
                stderr=log,
                user=self._user(),
                cwd=self.folder,
            )
        wait_for("Postgres answers", self._answers)

    def _speak_tls_only(self, data: Path) -> None:
        """Certificate and key where the server's user can read them; pg_hba.conf without a plain `host`."""
        assert self.certificates
        for source, name in ((self.certificates.chain, "server.pem"), (self.certificates.key, "server.key")):
            shutil.copy(source, self.folder / name)
            (self.folder / name).chmod(0o600)
            if user := self._user():
                shutil.chown(self.folder / name, user)
        (data / "pg_hba.conf").write_text("hostssl all all all trust\n")
        self.settings |= {
            "ssl": "on",
            "ssl_cert_file": str(self.folder / "server.pem"),
            "ssl_key_file": str(self.folder / "server.key"),
        }

    def _answers(self) -> bool:
        try:
            psycopg2.connect(self.url("postgres")).close()
        except psycopg2.OperationalError:
            return False
        return True

    def url(self, database: str) -> str:
        """The libpq URL of one of its databases; SQLAlchemy takes it as well."""
        if self.certificates:
            query = f"sslmode=verify-full&sslrootcert={self.certificates.ca}"
            return f"postgresql://postgres@localhost:{self.port}/{database}?{query}"
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def database(self) -> str:
        """Make a fresh database.

        Returns:
            its URL.
        """
        name = f"t{next(self.names)}"
        connection = psycopg2.connect(self.url("postgres"))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {name}")
        finally:
            connection.close()
        return self.url(name)

    def _pids(self) -> list[int]:
        """The postmaster and its children; none if it does not run."""
        if not self.process or self.process.poll() is not None:
            return []
        children = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [self.process.pid, *map(int, children.stdout.split())]

    def signal_all(self, number: int) -> list[int]:
        """Send a signal to the postmaster and to its children; their process ids."""
        pids = self._pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    def kill(self) -> None:
        """kill -9 of the postmaster and of its children; all are gone afterwards."""
        self.signal(signal.SIGSTOP)  # it must not fork another child meanwhile
        pids = self.signal_all(signal.SIGKILL)
        if self.process:
            self.process.wait()
        # A child that is still dying holds the shared memory, and the next postmaster would refuse to start.
        wait_for("the children are gone", lambda: not any(Path(f"/proc/{pid}/stat").exists() for pid in pids))

    def stop(self) -> None:
        super().stop()
        if os.geteuid() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)


class RedisServer(_Server):
    """A private Redis without persistence; `options` as redis-server takes them.

    With `certificates` it speaks TLS only, as `localhost`.
    """

    def __init__(self, folder: Path, *options: str, certificates: Certificates | None = None) -> None:
        self.folder, self.port, self.certificates = folder, free_port(), certificates
        self.options: tuple[str, ...] = ("--port", str(self.port), *options)
        if certificates:
            files = ("--tls-cert-file", str(certificates.chain), "--tls-key-file", str(certificates.key))
            self.options = ("--port", "0", "--tls-port", str(self.port), *files, "--tls-auth-clients", "no", *options)

    @property
    def url(self) -> str:
        """Its URL, database 0."""
        if self.certificates:
            return f"rediss://localhost:{self.port}/0?ssl_ca_certs={self.certificates.ca}"
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        if not (binary := shutil.which("redis-server")):
            raise RuntimeError(
                "no Redis server found: install the Debian package redis-server, or run `make packages` as root"
            )
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    binary,
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                    "--maxmemory-policy",
                    "noeviction",
                    "--dir",
                    str(self.folder),
                    *self.options,
                ],
                stdout=log,
                stderr=log,
            )
        wait_for("Redis answers", self._answers)

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def flush(self) -> None:
        """Forget everything."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()


class PgBouncer(_Server):
    """A private PgBouncer in transaction mode before a `PostgresServer`.

    Fewer server connections than clients: sessions are truly shared.
    """

    def __init__(self, folder: Path, postgres: PostgresServer, *, server_connections: int = 4) -> None:
        self.postgres, self.server_connections = postgres, server_connections
        # As root it changes to the postgres user, who must be able to read its files.
        self.folder = Path(tempfile.mkdtemp(prefix="mailfleet-bouncer-")) if os.geteuid() == 0 else folder
        self.port = free_port()

    def url(self, url: str) -> str:
        """The URL of a database of that Postgres, through the pool."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{url.rpartition('/')[2]}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        binary = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if not binary:
            raise RuntimeError("no pgbouncer found: install the Debian package, or run `make packages` as root")
        (self.folder / "users").write_text('"postgres" ""\n')
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": self.folder / "users",
            "pool_mode": "transaction",
            "default_pool_size": self.server_connections,
            "max_client_conn": 200,
            "admin_users": "postgres",
            "server_reset_query_always": 0,
        }
        lines = "".join(f"{k} = {v}\n" for k, v in settings.items())
        target = f"* = host=127.0.0.1 port={self.postgres.port} user=postgres\n"
        (self.folder / "ini").write_text(f"[databases]\n{target}[pgbouncer]\n{lines}")
        user = "postgres" if os.geteuid() == 0 else None
        if user:
            for path in (self.folder, *self.folder.iterdir()):
                shutil.chown(path, user)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [binary, str(self.folder / "ini")], stdout=log, stderr=log, user=user, cwd=self.folder
            )
        wait_for("PgBouncer answers", lambda: bool(self.show("VERSION")))

    def show(self, what: str) -> list[dict[str, str]]:
        """What its console says; nothing while it does not answer."""
        try:
            connection = psycopg2.connect(self.url("/pgbouncer"))
        except psycopg2.OperationalError:
            return []
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"SHOW {what}")
                names = [c.name for c in cursor.description or ()]
                return [dict(zip(names, map(str, row), strict=True)) for row in cursor.fetchall()]
        finally:
            connection.close()

    def stop(self) -> None:
        super().stop()
        if os.geteuid() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
