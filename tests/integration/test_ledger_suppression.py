"""Suppression and usage, in the transactions that record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg2.errors
import pytest
from sqlalchemy.exc import DBAPIError

from ledgers import Desk, claim, outcomes
from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.errors import Fenced
from mailfleet_sender.ledger import AddressHasher, load_address_key, suppressed, usage_since
from mailfleet_sender.ledger.suppression import GLOBAL, Suppressed, entries, put, remove
from proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILED, SENT = OutcomeKind.FAILED, OutcomeKind.SENT


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    with Desk(database_url) as desk:
        yield desk


def entry(name: str, reason: str = "Manual", expires_at: datetime | None = None) -> dict[bytes, Suppressed]:
    return {name.encode(): Suppressed(name.encode(), reason, expires_at)}


def test_the_hash_is_of_the_lower_cased_address_and_of_no_blanks(desk: Desk) -> None:
    hasher = AddressHasher(load_address_key(desk.engine()))
    assert hasher(" Ann@Example.COM\n") == hasher("ann@example.com")
    assert hasher("ann@example.com") != AddressHasher(b"another")("ann@example.com")
    assert len(hasher("ann@example.com") or b"") == 32
    assert hasher("  ") is None
    assert hasher.key.hex() not in repr(hasher)
    assert repr(hasher.key) not in repr(hasher)


def test_scopes_and_expiry(desk: Desk) -> None:
    engine = desk.engine()
    now = datetime.now(UTC)
    put(engine, "shop", entry("a", "Complaint") | entry("gone", expires_at=now - timedelta(seconds=1)))
    put(engine, "other", entry("b"))
    put(engine, GLOBAL, entry("a", "Law") | entry("c", "Law", now + timedelta(hours=1)))
    hashes = [b"a", b"b", b"c", b"gone", b"unknown"]
    assert suppressed(engine, "shop", hashes) == {b"a": "Complaint", b"c": "Law"}
    assert suppressed(engine, "other", hashes) == {b"a": "Law", b"b": "Manual", b"c": "Law"}
    assert suppressed(engine, "shop", []) == {}
    assert remove(engine, "shop", [b"a", b"b"]) == 1
    assert suppressed(engine, "shop", hashes) == {b"a": "Law", b"c": "Law"}
    put(engine, "other", entry("b", "Complaint", now))
    (changed,) = entries(engine, "other")
    assert (changed.reason, changed.expires_at) == ("Complaint", now)
    assert len(list(entries(engine, None))) == 4
    assert [e.scope for e in entries(engine, None, [b"a"])] == [GLOBAL]


@pytest.mark.parametrize("fault", ["before", "after", "hold"])
def test_a_hard_bounce_is_suppressed_and_counted_once_with_the_record(desk: Desk, fault: str) -> None:
    engine = desk.engine()
    put(engine, "shop", entry("h2", expires_at=datetime.now(UTC)) | entry("h3", "Complaint"))
    began = datetime.now(UTC)
    with Proxy(desk.url) as proxy:
        owned = desk.own(url=proxy.url, account="ses")
        claim(owned, 10)
        made = [
            *(o for p in (1, 2, 3) for o in outcomes(owned, [p], FAILED, address_hash=b"h%d" % p, suppress=True)),
            *outcomes(owned, [4], FAILED, address_hash=b"h4", after_dot=True),
            *outcomes(owned, [5], OutcomeKind.DEFERRED, address_hash=b"h5", retry_after_seconds=9, after_dot=True),
            *outcomes(owned, [6], SENT, address_hash=b"h6"),
            *outcomes(owned, [7], OutcomeKind.UNCERTAIN, address_hash=b"h7"),
        ]
        proxy.fault = fault  # type: ignore[assignment]
        owned.record(made)
        assert proxy.spoiled == 1
    assert suppressed(engine, "shop", [b"h%d" % p for p in range(10)]) == {
        b"h1": "HardBounce",
        b"h2": "HardBounce",
        b"h3": "Complaint",
    }
    assert suppressed(engine, "other", [b"h1"]) == {}
    assert sum(n for _, n in usage_since(engine, "ses", began)) == 4
    assert usage_since(engine, "other", began) == []
    hashes = [bytes(h) for (h,) in desk.sql("SELECT address_hash FROM delivery ORDER BY pos")]
    assert hashes == [b"h%d" % p for p in range(1, 8)]
    desk.books()


def test_what_is_not_recorded_suppresses_and_counts_nothing(desk: Desk) -> None:
    owned = desk.own(account="ses")
    claim(owned, 10)
    made = outcomes(owned, [1], FAILED, address_hash=b"h", suppress=True, after_dot=True)
    desk.sql("UPDATE range SET open = '{}', returned = open WHERE id = %s", owned.id)
    with pytest.raises(DBAPIError) as refused:
        owned.record(made)
    assert isinstance(refused.value.orig, psycopg2.errors.CheckViolation)
    assert suppressed(desk.engine(), "shop", [b"h"]) == {}
    assert desk.sql("SELECT * FROM usage") == []


def test_a_takeover_counts_what_it_finds_open_for_the_account_of_the_dead(desk: Desk) -> None:
    began = datetime.now(UTC)
    dead = desk.own(account="old")
    made = outcomes(dead, claim(dead, 20), FAILED, address_hash=b"h", suppress=True)
    desk.expire()
    successor = desk.own(account="new")
    successor.record(outcomes(successor, claim(successor, 5)))
    desk.expire()
    desk.runs.settle(successor.id)
    with pytest.raises(Fenced):
        dead.record(made)
    dead.leave_late(made)
    engine = desk.engine()
    assert [n for _, n in usage_since(engine, "old", began)] == [20]
    assert [n for _, n in usage_since(engine, "new", began)] == [5]
    assert suppressed(engine, "shop", [b"h"]) == {b"h": "HardBounce"}


def test_usage_is_read_in_whole_buckets_oldest_first(desk: Desk) -> None:
    noon = datetime(2026, 11, 24, 12, tzinfo=UTC)
    for minutes, range_id, n in ((0, 1, 3), (0, 2, 4), (5, 1, 5), (-5, 1, 100)):
        desk.sql("INSERT INTO usage VALUES ('ses', %s, %s, %s)", noon + timedelta(minutes=minutes), range_id, n)
    found = usage_since(desk.engine(), "ses", noon + timedelta(minutes=4))
    assert found == [(noon, 7), (noon + timedelta(minutes=5), 5)]
    owned = desk.own(account="ses")
    owned.record(outcomes(owned, claim(owned, 3)))
    (bucket, n) = usage_since(desk.engine(), "ses", datetime.now(UTC))[-1]
    assert (bucket.timestamp() % 300, n) == (0, 3)
