"""The verb `check`, which `helm test` runs."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from certificates import Certificates
from mailfleet_sender.contract import environment
from mailfleet_sender.ledger import migrate
from services import PostgresServer, RedisServer, free_port

if TYPE_CHECKING:
    from pathlib import Path


def check(ledger_url: str, redis_url: str) -> subprocess.CompletedProcess[str]:
    own = {environment.LEDGER_URL: ledger_url, environment.REDIS_URL: redis_url}
    return subprocess.run(
        [sys.executable, "-m", "mailfleet_sender", "check"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **own},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_all_is_well(database_url: str, redis_server: RedisServer) -> None:
    migrate(database_url)
    done = check(database_url, redis_server.url)
    assert (done.returncode, done.stdout) == (0, "ledger: ok\nredis: ok\n")


def test_what_is_wrong_is_told_of_each(database_url: str) -> None:
    """A ledger that was never migrated, and nobody at Redis' port; nothing of the URLs is told."""
    done = check(database_url, f"redis://:secret@127.0.0.1:{free_port()}/0")
    ledger, redis = done.stdout.splitlines()
    assert done.returncode == environment.Exit.IMPOSSIBLE
    assert ledger.startswith("ledger: its shape is none, this version wants ")
    assert redis.startswith("redis: ")
    assert "ok" not in redis
    assert "secret" not in done.stdout + done.stderr


def test_servers_of_a_private_authority_are_reached_by_its_file_alone(tmp_path: Path) -> None:
    """As pods have it in /etc/mailfleet/trust; another authority's, and none at all, are told of each server."""
    house, other = Certificates.make(tmp_path / "house"), Certificates.make(tmp_path / "other")
    with (
        PostgresServer(tmp_path / "postgres", certificates=house) as postgres,
        RedisServer(tmp_path / "redis", certificates=house) as limiter,
    ):
        urls = (postgres.database(), limiter.url)
        migrate(urls[0])
        assert check(*urls).stdout == "ledger: ok\nredis: ok\n"
        for file, fault in ((other.ca, "certificate verify failed"), (tmp_path / "none.crt", "does not exist")):
            done = check(*(url.replace(str(house.ca), str(file)) for url in urls))
            ledger, redis = done.stdout.splitlines()
            assert done.returncode == environment.Exit.IMPOSSIBLE
            assert fault in ledger
            assert redis.startswith("redis: ")
            assert redis != "redis: ok"


def test_a_ledger_that_is_away_is_told(redis_server: RedisServer) -> None:
    done = check(f"postgresql://u:secret@127.0.0.1:{free_port()}/x", redis_server.url)
    assert done.returncode == environment.Exit.IMPOSSIBLE
    assert done.stdout.splitlines()[1] == "redis: ok"
    assert "secret" not in done.stdout + done.stderr
