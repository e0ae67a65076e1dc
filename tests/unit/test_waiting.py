"""Who waits for a domain, who is put off, and what that costs."""

from __future__ import annotations

from datetime import UTC, datetime

from mailfleet_sender.audience import Row
from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.contract.campaign import Retry
from mailfleet_sender.delivery.candidate import Candidate
from mailfleet_sender.delivery.waiting import MOST, OCTETS, Waiting
from mailfleet_sender.limiter import ANY, DomainPermits, Permits

GMAIL = "gmail.com"


def candidate(position: int = 0, *, email: str = "a@Gmail.com", again: bool = False, attempt: int = 1) -> Candidate:
    since = datetime(2026, 1, 1, tzinfo=UTC) if again else None
    return Candidate(position, str(position), attempt, since, Row(str(position), email, {}))


def waiting(count: int, *, batch: int = 25) -> Waiting:
    found = Waiting(Retry())
    found.limited, found.batch = frozenset({GMAIL}), batch
    found.refused({GMAIL: 1})
    for position in range(count):
        found.add(candidate(position))
    return found


def test_a_domain_is_what_follows_the_at_whatever_its_case() -> None:
    assert waiting(0).concerns(candidate(email="A@GMAIL.com"))
    assert not waiting(0).concerns(candidate(email="a@mail.gmail.com"))


def batch(gmail: int, others: int) -> Permits:
    return Permits(
        gmail + others, 0.0, 0.01, 0.1, 0.0, 0.0, domains=(DomainPermits(GMAIL, gmail), DomainPermits(ANY, others))
    )


def test_two_batches_wait_for_a_domain_that_holds_them_up_and_no_more() -> None:
    assert waiting(49).has_room(candidate())
    assert not waiting(50).has_room(candidate())


def test_nobody_is_put_off_for_a_domain_that_gave_what_was_asked_for() -> None:
    found = waiting(60)
    found.granted({GMAIL: 10, ANY: 90}, batch(10, 20))
    assert found.has_room(candidate())
    found.granted({GMAIL: 11, ANY: 90}, batch(10, 20))
    assert not found.has_room(candidate())


def test_a_batch_that_went_to_the_domain_alone_says_nothing_of_its_limit() -> None:
    found = waiting(60)
    found.granted({GMAIL: 60, ANY: 90}, batch(30, 0))
    assert not found.has_room(candidate())
    found.granted({GMAIL: 30, ANY: 90}, batch(30, 1))
    found.granted({GMAIL: 60, ANY: 90}, batch(30, 0))
    assert found.has_room(candidate())


def test_who_was_deferred_before_waits_among_more() -> None:
    assert waiting(50).has_room(candidate(again=True))
    assert not waiting(MOST).has_room(candidate(again=True))


def test_large_rows_do_not_fill_the_memory() -> None:
    found = waiting(0)
    row = Row("0", "a@gmail.com", {"story": "x" * OCTETS})
    found.add(Candidate(0, "0", 1, None, row, octets=row.octets))
    assert not found.has_room(candidate())
    found.take(GMAIL, 1)
    assert found.has_room(candidate())


def test_whoever_is_put_off_is_deferred_and_no_attempt_is_charged() -> None:
    put_off = candidate(attempt=3)
    waiting(0).put_off(put_off)
    assert put_off.verdict is not None
    assert (put_off.verdict.kind, put_off.verdict.code) == (OutcomeKind.DEFERRED, "DomainLimit")
    assert put_off.verdict.attempt == 2
    assert put_off.verdict.retry_after_seconds == Retry().initial_delay_seconds


def test_at_the_end_those_go_first_who_were_not_deferred_before() -> None:
    found = waiting(3)
    found.add(candidate(3, again=True))
    assert [c.position for c in found.put_off_all(also_again=False)] == [0, 1, 2]
    assert found.counts() == {GMAIL: 1}
    assert [c.position for c in found.put_off_all(also_again=True)] == [3]
    assert not found
