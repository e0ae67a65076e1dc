"""Suppression by real sender processes: nobody on the list gets a mail, and a bounce puts people on it."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg2
import pytest

from books import check_books
from fleet import NAMESPACE, Fleet, subscribers
from mailfleet_sender.ledger import AddressHasher, load_address_key, usage_since
from mailfleet_sender.ledger.suppression import GLOBAL, Suppressed, entries, put
from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sink import Sink


@pytest.fixture
def fleet(database_url: str, redis_url: str, sink: Sink, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(database_url, database_url, redis_url, sink, tmp_path, rate="5000/s") as fleet:
        yield fleet


def hashes(fleet: Fleet, numbers: list[int]) -> dict[bytes, Suppressed]:
    hasher = AddressHasher(load_address_key(fleet.engine))
    found = [hasher(f"USER{i}@example.net") for i in numbers]
    return {h: Suppressed(h, "Complaint") for h in found if h}


def rows(fleet: Fleet, query: str) -> list[tuple[object, ...]]:
    with contextlib.closing(psycopg2.connect(fleet.ledger_url)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def test_the_suppressed_get_no_mail_and_bounces_are_suppressed_for_the_next_campaign(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 2_400)
    put(fleet.engine, NAMESPACE, hashes(fleet, [1, 2, 600]))
    put(fleet.engine, GLOBAL, hashes(fleet, [3, 1_500]))
    put(fleet.engine, "another", hashes(fleet, [4]))
    expired = {h: Suppressed(h, "Old", datetime.now(UTC) - timedelta(days=1)) for h in hashes(fleet, [5])}
    put(fleet.engine, NAMESPACE, expired)
    began = datetime.now(UTC)
    fleet.sink.behave({"phase": "rcpt", "recipient": "^user1[0-9][0-9]@", "reply": "550 5.1.1 no such user"})
    fleet.start()
    fleet.work(3)
    check_books(fleet.ledger_url, fleet.run)
    totals = fleet.totals
    assert (totals.sent, totals.failed, totals.suppressed) == (2_295, 100, 5)
    silent = {f"user{i}@example.net" for i in (1, 2, 600, 3, 1_500, *range(100, 200))}
    assert set(fleet.accepted()) == set(fleet.audience().values()) - silent
    assert set(rows(fleet, "SELECT key, code FROM delivery WHERE outcome = 'suppressed'")) == {
        (key, "Suppressed:Complaint") for key in ("1", "2", "3", "600", "1500")
    }
    assert rows(fleet, "SELECT count(*) FROM delivery WHERE address_hash IS NULL") == [(0,)]
    assert rows(fleet, "SELECT count(DISTINCT address_hash) FROM delivery") == [(2_400,)]
    account = fleet.relay().account
    assert sum(n for _, n in usage_since(fleet.engine, account, began)) == 2_295  # refused at RCPT is no usage
    bounced = {e.address_hash for e in entries(fleet.engine, NAMESPACE) if e.reason == "HardBounce"}
    assert bounced == set(hashes(fleet, list(range(100, 200))))
    secret = load_address_key(fleet.engine)
    logs = b"".join(log.read_bytes() for log in fleet.folder.glob("sender-*.log"))
    assert secret.hex().encode() not in logs
    assert b"@example.net" not in logs

    fleet.sink.behave()
    fleet.sink.reset()
    fleet.run_id = "2"
    fleet.start()
    fleet.work(3)
    assert (fleet.totals.sent, fleet.totals.suppressed) == (2_295, 105)
    assert set(fleet.accepted()) == set(fleet.audience().values()) - silent


def test_who_is_suppressed_while_its_row_waits_for_a_permit_gets_no_mail(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 300)
    fleet.rate = "25/s"
    fleet.start()
    fleet.tend(1)
    wait_for("it sends, and has read every row", lambda: fleet.sink.summary().accepted > 10)
    late = list(range(250, 301))
    put(fleet.engine, NAMESPACE, hashes(fleet, late))
    fleet.work(1)
    check_books(fleet.ledger_url, fleet.run)
    assert (fleet.totals.sent, fleet.totals.suppressed) == (249, 51)
    assert not {f"user{i}@example.net" for i in late} & set(fleet.accepted())
