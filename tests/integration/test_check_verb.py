"""The verb `check`, which `helm test` runs."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from mailfleet_sender.contract import environment
from mailfleet_sender.ledger import migrate
from services import free_port

if TYPE_CHECKING:
    from services import RedisServer


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


def test_a_ledger_that_is_away_is_told(redis_server: RedisServer) -> None:
    done = check(f"postgresql://u:secret@127.0.0.1:{free_port()}/x", redis_server.url)
    assert done.returncode == environment.Exit.IMPOSSIBLE
    assert done.stdout.splitlines()[1] == "redis: ok"
    assert "secret" not in done.stdout + done.stderr
