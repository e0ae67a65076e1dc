"""The same run on the ways to a ledger that installations have: PgBouncer in transaction mode, and TLS."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg2
import pytest

from books import check_books
from certificates import Certificates
from fleet import Fleet, campaign, subscribers
from mailfleet_sender.errors import LedgerUnavailable
from mailfleet_sender.ledger import migrate
from services import PgBouncer, PostgresServer, RedisServer, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from sink import Sink

LEASE = {"MAILFLEET_LEASE_SECONDS": "3", "MAILFLEET_MARGIN_SECONDS": "1"}


def run_with_a_kill(fleet: Fleet) -> None:
    """Plan, three senders, one of them killed; everybody accounted for, by the oracle too."""
    fleet.definition = campaign(retry={"initialDelaySeconds": 1})
    fleet.sink.behave({"phase": "rcpt", "recipient": "^user[0-9]*5@", "reply": "451 4.7.1 later", "count": 40})
    fleet.start()
    fleet.tend(3)
    wait_for("all send", lambda: fleet.sink.summary().accepted > 600)
    fleet.senders[0].process.kill()
    fleet.work(3)
    while fleet.totals.deferred:
        wait_for("some of the deferred are due", lambda: fleet.runs.retry_wave(fleet.run, fleet.range_size))
        fleet.work(3)
    assert fleet.runs.complete(fleet.run)
    totals = check_books(fleet.ledger_url, fleet.run).totals
    assert totals["sent"] + totals["uncertain"] == 3_000
    oracle = fleet.held_against_the_oracle()
    print(totals, oracle)
    assert (oracle["lost"], oracle["duplicates"], oracle["doubted"]) == (0, 0, totals["uncertain"])


@pytest.mark.timeout(600)
def test_a_run_through_pgbouncer_in_transaction_mode(
    postgres: PostgresServer, redis_url: str, sink: Sink, tmp_path: Path
) -> None:
    with PgBouncer(tmp_path, postgres, server_connections=3) as bouncer:
        direct = postgres.database()
        url = bouncer.url(direct)
        subscribers(url, 3_000)
        with Fleet(url, url, redis_url, sink, tmp_path, rate="1000/s", environ=LEASE) as fleet:
            run_with_a_kill(fleet)
            (pool,) = [p for p in bouncer.show("POOLS") if p["database"] == direct.rpartition("/")[2]]
            (stats,) = [p for p in bouncer.show("STATS") if p["database"] == pool["database"]]
        assert pool["pool_mode"] == "transaction"
        assert int(stats["total_xact_count"]) > 100
        with contextlib.closing(psycopg2.connect(direct)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
            ((backends,),) = cursor.fetchall()
        assert backends <= 1 + 3  # this one, and the pool's


@pytest.mark.timeout(600)
def test_a_run_over_tls_that_verifies_the_servers_by_a_private_authority(sink: Sink, tmp_path: Path) -> None:
    """Ledger, recipients' database and Redis."""
    certificates, other = Certificates.make(tmp_path / "house"), Certificates.make(tmp_path / "other")
    with (
        PostgresServer(tmp_path / "postgres", certificates=certificates) as postgres,
        RedisServer(tmp_path / "redis", certificates=certificates) as limiter,
    ):
        url = postgres.database()
        with pytest.raises(LedgerUnavailable, match="certificate verify failed"):
            migrate(url.replace(str(certificates.ca), str(other.ca)))
        with pytest.raises(LedgerUnavailable, match="no encryption"):
            migrate(url.replace("verify-full", "disable"))
        subscribers(url, 3_000)
        with Fleet(url, url, limiter.url, sink, tmp_path, rate="1000/s", environ=LEASE) as fleet:
            run_with_a_kill(fleet)
