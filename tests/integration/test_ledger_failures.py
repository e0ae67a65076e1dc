"""The most frequent reasons of failed recipients, from the ledger."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg2
import pytest

from ledgers import PAGE, Desk, claim, outcomes, send_all
from mailfleet_sender.contract.accounts import OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailfleet_sender.ledger import OwnedRange

FAILED = OutcomeKind.FAILED
REASONS = (
    (10, "550", "5.1.1", "no such user <recipient>"),
    (20, "550", "5.7.1", "spam"),
    (3, "554", "5.7.1", "still spam"),
    (12, "552", None, "full"),
    (1, "RowTooLarge", None, None),
    (2, None, "5.6.1", None),
    (1, "556", None, "one too many"),
)


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    with Desk(database_url) as desk:
        yield desk


def fail(owned: OwnedRange, count: int, code: str | None, enhanced: str | None, reply: str | None) -> None:
    owned.record(outcomes(owned, claim(owned, count), FAILED, code=code, enhanced=enhanced, reply=reply))


def test_codes_are_counted_the_most_frequent_first(desk: Desk) -> None:
    first, second = desk.own(0), desk.own(1)
    for n, reason in enumerate(REASONS):
        fail((first, second)[n % 2], *reason)
    found = desk.runs.failures(desk.run, 5, retried=False)
    assert [(f.code, f.count) for f in found] == [("5.7.1", 23), ("552", 12), ("5.1.1", 10), ("5.6.1", 2), ("556", 1)]
    assert found[0].sample in {"spam", "still spam"}
    assert [f.sample for f in found[1:]] == ["full", "no such user <recipient>", "", "one too many"]
    everything = desk.runs.failures(desk.run, 100, retried=False)
    assert sum(f.count for f in everything) == desk.totals()["failed"]
    assert desk.runs.failures(desk.run, 5, retried=True) == found
    assert desk.runs.failures(desk.run + 1, 5, retried=False) == ()


def test_who_was_sent_to_again_counts_with_the_last_verdict(desk: Desk) -> None:
    first = desk.own(0)
    fail(first, 10, "550", "5.1.1", "no such user")
    fail(first, 20, "550", "5.7.1", "spam")
    send_all(first)
    for index in (1, 2, 3):
        send_all(desk.own(index))
    assert desk.runs.complete(desk.run)
    assert desk.runs.retry_failed(desk.run, 1, ["5.7.1"], PAGE) == 2

    def counts() -> dict[str, int]:
        found = {f.code: f.count for f in desk.runs.failures(desk.run, 5, retried=True)}
        assert sum(found.values()) == desk.totals()["failed"]
        return found

    assert counts() == {"5.1.1": 10, "5.7.1": 20}, "who waits for another attempt has still failed"
    again = desk.own(0, wave=2)
    again.record(outcomes(again, claim(again, 5), OutcomeKind.SENT))
    fail(again, 7, "452", "4.2.2", "full")
    assert counts() == {"5.1.1": 10, "4.2.2": 7, "5.7.1": 8}


def test_counting_reads_the_index_of_failed_deliveries_alone(desk: Desk) -> None:
    first = desk.own(0)
    fail(first, 10, "550", "5.1.1", "no such user")
    send_all(first)
    with contextlib.closing(psycopg2.connect(desk.url)) as connection, connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        cursor.execute(
            "EXPLAIN SELECT enhanced, code, count(*) FROM delivery WHERE run = %s AND outcome = 'failed' GROUP BY 1, 2",
            (desk.run,),
        )
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Index Only Scan" in plan, plan
    assert "Seq Scan" not in plan, plan
