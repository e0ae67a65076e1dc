"""What is forgotten and what never; erasure; beside senders that go on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg2
import pytest

from books import sample
from ledgers import PAGE, Desk, claim, outcomes, send_all
from mailfleet_operator.housekeeping import keep_house
from mailfleet_operator.ledger import Ledger
from mailfleet_sender.contract.accounts import OutcomeKind, ReportReason
from mailfleet_sender.errors import Fenced
from mailfleet_sender.ledger import Positions, Retained, make_partitions, report, retain
from mailfleet_sender.ledger.erasure import erase
from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

TODAY = date(2026, 11, 24)
DELIVERY = "INSERT INTO delivery (at, run, range, pos, key, attempt, outcome) VALUES (%s, %s, 1, %s, %s, 1, 'sent')"


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    with Desk(database_url) as desk:
        yield desk


def months(desk: Desk) -> list[str]:
    return [
        name
        for (name,) in desk.sql(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'delivery'::regclass ORDER BY 1"
        )
        if name < "delivery_2026_11"
    ]


def end(desk: Desk, *, days: float) -> None:
    """Send everything; the run ended so many days ago."""
    for wave, index in desk.runs.open_ranges(desk.run):
        send_all(desk.own(index, wave=wave))
    assert desk.runs.complete(desk.run)
    desk.sql("UPDATE run SET ended_at = ended_at - %s * interval '1 day' WHERE id = %s", days, desk.run)


def test_whole_months_go_when_they_are_old_enough_and_no_open_run_needs_them(desk: Desk) -> None:
    engine = desk.engine()
    make_partitions(engine, date(2026, 7, 1))
    other = desk.runs.ensure("shop", "old", "1", desk.campaign).id
    desk.sql("UPDATE run SET ended_at = '2026-08-02', state = 'Complete' WHERE id = %s", other)
    desk.sql(DELIVERY, "2026-07-31 23:59:59+00", other, 0, "a")
    desk.sql(DELIVERY, "2026-08-01 00:00:00+00", desk.run, 1, "b")
    desk.sql(DELIVERY, "2026-09-01 00:00:00+00", other, 2, "c")
    desk.sql(DELIVERY, "2020-01-01 00:00:00+00", other, 3, "d")  # in the DEFAULT partition
    desk.sql(DELIVERY, "2020-01-01 00:00:00+00", desk.run, 4, "e")
    assert months(desk) == ["delivery_2026_07", "delivery_2026_08", "delivery_2026_09", "delivery_2026_10"]
    assert retain(engine, months=4, today=TODAY) == Retained(deliveries=1)
    gone = retain(engine, months=2, today=TODAY)
    assert gone.partitions == ("delivery_2026_07",)  # 08 has a row of an open run
    assert retain(engine, months=2, today=TODAY) == Retained()
    assert [key for (key,) in desk.sql("SELECT key FROM delivery ORDER BY pos")] == ["b", "c", "e"]
    end(desk, days=0)
    gone = retain(engine, months=1, today=TODAY)
    assert (gone.partitions, gone.deliveries) == (("delivery_2026_08", "delivery_2026_09"), 1)
    with pytest.raises(ValueError, match="at least a month"):
        retain(engine, months=0)


def test_pages_and_reports_go_a_day_after_the_end_and_every_sum_stays(desk: Desk) -> None:
    engine = desk.engine()
    report(engine, desk.run, "pod-1", ReportReason.RELAY_UNAVAILABLE, "away")
    frozen = desk.own(0)
    made = outcomes(frozen, claim(frozen, 5))
    desk.expire()
    assert desk.own(0).epoch > frozen.epoch
    desk.expire()
    end(desk, days=0.9)
    with pytest.raises(Fenced):
        frozen.record(made)
    frozen.leave_late(made[:3])
    before = desk.totals()
    assert before == {"planned": 2_000, "sent": 1_995, "uncertain": 5}
    assert retain(engine, months=12) == Retained()
    desk.sql("UPDATE run SET ended_at = ended_at - interval '3 hours'")
    assert retain(engine, months=12) == Retained(pages=4)
    for table in ("page", "report", "late_outcome"):
        assert desk.value(f"SELECT count(*) FROM {table}") == 0
    after = sample(desk.url, desk.run)
    assert {k: v for k, v in after.items() if v} == {"planned": 2_000, "sent": 1_998, "uncertain": 2}
    assert desk.value("SELECT count(*) FROM doubt") == 2
    assert desk.runs.retry_failed(desk.run, 1, ["Uncertain"], PAGE) == 2  # needs no old page
    assert retain(engine, months=12) == Retained()
    send_all(desk.own(wave=2))
    assert desk.runs.complete(desk.run)
    desk.sql("UPDATE run SET ended_at = '2026-01-31'")
    assert retain(engine, months=9, today=TODAY).doubts == 2
    assert {k: v for k, v in sample(desk.url, desk.run).items() if v} == {"planned": 2_000, "sent": 2_000}


def test_old_usage_and_expired_suppressions_go(desk: Desk) -> None:
    now = datetime.now(UTC)
    for days in (0, 7.9, 8.1, 30):
        desk.sql("INSERT INTO usage VALUES ('ses', %s, 1, 1)", now - timedelta(days=days))
    for n, expires in enumerate((None, now + timedelta(days=1), now - timedelta(seconds=1))):
        desk.sql("INSERT INTO suppression VALUES ('', %s, 'Manual', now(), %s)", b"%d" % n, expires)
    assert retain(desk.engine(), months=1) == Retained(usage=2, suppressions=1)
    assert desk.value("SELECT count(*) FROM usage") == 2
    assert [bytes(h) for (h,) in desk.sql("SELECT address_hash FROM suppression ORDER BY 1")] == [b"0", b"1"]


def test_beside_senders_and_a_long_reader_nothing_fails(desk: Desk) -> None:
    engine = desk.engine()
    make_partitions(engine, date(2020, 1, 1))
    stop = threading.Event()

    def send(index: int) -> int:
        owned, writes = desk.own(index), 0
        while not stop.is_set() and owned.position < owned.planned:
            owned.record(outcomes(owned, claim(owned, 1)))
            writes += 2
        if not owned.ended:
            owned.drain()
        return writes

    with contextlib.closing(psycopg2.connect(desk.url)) as reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM delivery")  # its transaction stays open and locks all months
        senders = [desk.soon(send, index) for index in range(3)]
        busy = retain(engine, months=12)
        assert busy.partitions == ()
        reader.rollback()
        twice = [desk.soon(retain, desk.engine(), months=12) for _ in range(2)]
        gone = [name for done in twice for name in done.result(60).partitions]
    stop.set()
    assert all(done.result(60) > 0 for done in senders)
    assert sorted(gone) == [f"delivery_2020_0{n}" for n in range(1, 5)]
    desk.books()


async def test_the_operator_makes_the_coming_months_and_forgets_the_old(desk: Desk) -> None:
    make_partitions(desk.engine(), date(2019, 1, 1))
    ahead = f"delivery_{datetime.now(UTC) + timedelta(days=62):%Y_%m}"
    desk.sql(f"DROP TABLE {ahead}")
    with ThreadPoolExecutor(1) as executor:
        task = asyncio.create_task(keep_house(Ledger(desk.engine()), 12, executor))
        await asyncio.to_thread(wait_for, "the house is kept", lambda: not [m for m in months(desk) if "2019" in m])
        assert desk.value("SELECT to_regclass(%s) IS NOT NULL", ahead)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_an_erased_person_is_a_number_and_nothing_else(desk: Desk) -> None:
    engine = desk.engine()
    owned = desk.own(0)
    claim(owned, 10)
    owned.record(outcomes(owned, [0], address_hash=b"ann"))
    owned.record(outcomes(owned, [1], OutcomeKind.UNCERTAIN, address_hash=b"bob"))
    owned.record(outcomes(owned, [2], OutcomeKind.DEFERRED, address_hash=b"cid", retry_after_seconds=0))
    owned.record(outcomes(owned, [3], OutcomeKind.FAILED, address_hash=b"dan", code="552", suppress=True))
    before = desk.totals()
    assert erase(engine, [b"ann", b"bob", b"cid", b"nobody"]) == 3
    assert erase(engine, [b"ann", b"bob", b"cid"]) == 0
    for table in ("delivery", "doubt", "deferral"):
        assert desk.value(f"SELECT count(*) FROM {table} WHERE key IN ('k0', 'k1', 'k2')") == 0
    assert desk.value("SELECT count(*) FROM page WHERE keys && ARRAY['k0', 'k1', 'k2']") == 0
    assert desk.value("SELECT count(*) FROM delivery WHERE address_hash IS NOT NULL") == 1
    assert {k: v for k, v in sample(desk.url, desk.run).items() if v} == before
    assert desk.runs.retry_wave(desk.run, PAGE) == 2
    assert desk.runs.retry_failed(desk.run, 1, ["552", "Uncertain"], PAGE) == 3
    (nameless,) = desk.own(wave=2).recipients(Positions.of([0]))
    assert nameless.key is None  # the sender skips it as Erased
    assert [k.key for k in desk.own(wave=3).recipients(Positions.of([0]))] == ["k3"]
