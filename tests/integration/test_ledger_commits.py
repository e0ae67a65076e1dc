"""A COMMIT whose answer never comes: each write happens once, whatever became of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from ledgers import FAST, Desk, claim, outcomes, send_all
from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.contract.campaign import OnUncertain
from mailfleet_sender.errors import LedgerUnavailable
from mailfleet_sender.ledger import Ended, Leased, Positions
from proxy import Fault, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

FAULTS: tuple[Fault, ...] = ("before", "after", "hold")


@pytest.fixture(params=FAULTS)
def fault(request: pytest.FixtureRequest) -> Fault:
    found: Fault = request.param
    return found


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    with Desk(database_url) as desk:
        yield desk


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    with Proxy(database_url) as proxy:
        yield proxy


def test_a_claim_happens_once(desk: Desk, proxy: Proxy, fault: Fault) -> None:
    owned = desk.own(url=proxy.url)
    proxy.fault = fault
    claim(owned, 50)
    assert proxy.spoiled == 1
    assert owned.open == Positions.span(0, 50)
    assert not owned.troubled.is_set()
    assert desk.sql("SELECT pos, open::text, seq FROM range WHERE id = %s", owned.id) == [(50, "{[0,50)}", owned.seq)]
    claim(owned, 10)
    assert desk.totals() == {"planned": 2_000, "remaining": 2_000}


def test_outcomes_are_recorded_once(desk: Desk, proxy: Proxy, fault: Fault) -> None:
    owned = desk.own(url=proxy.url)
    sent = outcomes(owned, claim(owned, 50))
    proxy.fault = fault
    owned.record(sent)
    assert proxy.spoiled == 1
    assert desk.sql("SELECT count(*), count(DISTINCT (range, pos)) FROM delivery") == [(50, 50)]
    assert desk.totals() == {"planned": 2_000, "sent": 50, "remaining": 1_950}
    send_all(owned)
    assert owned.ended


def test_the_record_that_ends_a_range_folds_it_once(desk: Desk, proxy: Proxy, fault: Fault) -> None:
    owned = desk.own(url=proxy.url)
    sent = outcomes(owned, claim(owned, 500))
    proxy.fault = fault
    owned.record(sent)
    assert proxy.spoiled == 1
    assert owned.ended
    assert desk.value("SELECT sent FROM run WHERE id = %s", desk.run) == 500
    assert desk.totals() == {"planned": 2_000, "sent": 500, "remaining": 1_500}
    assert isinstance(desk.acquire(), Ended)


def test_a_drain_gives_back_once(desk: Desk, proxy: Proxy, fault: Fault) -> None:
    owned = desk.own(url=proxy.url)
    now = claim(owned, 50)
    owned.record(outcomes(owned, now.take(20)))
    proxy.fault = fault
    owned.drain()
    assert proxy.spoiled == 1
    assert not owned.ended
    assert desk.totals() == {"planned": 2_000, "sent": 20, "remaining": 1_980}
    successor = desk.own()
    assert successor.returned == Positions.span(20, 50)


def test_after_an_unknown_acquire_the_same_owner_takes_again_and_a_stranger_waits(
    desk: Desk, proxy: Proxy, fault: Fault
) -> None:
    me = uuid4()
    proxy.fault = fault
    with pytest.raises(LedgerUnavailable):
        desk.acquire(url=proxy.url, owner=me)
    assert proxy.spoiled == 1
    owned = desk.own(url=proxy.url, owner=me)
    stranger = desk.acquire()
    assert isinstance(stranger, Leased)
    assert 0 < stranger.seconds <= 15
    send_all(owned)
    assert desk.totals() == {"planned": 2_000, "sent": 500, "remaining": 1_500}


def test_a_re_send_is_claimed_once(database_url: str, fault: Fault) -> None:
    with Desk(database_url, on_uncertain=OnUncertain.RESEND) as desk, Proxy(database_url) as proxy:
        dead = desk.own()
        claim(dead, 3)
        desk.expire()
        owned = desk.own(url=proxy.url)
        proxy.fault = fault
        assert owned.claim_resend(0)
        assert proxy.spoiled == 1
        assert (owned.resending, owned.resend) == (Positions.of([0]), Positions.of([1, 2]))
        owned.record(outcomes(owned, [0]))
        assert desk.totals() == {"planned": 2_000, "sent": 1, "uncertain": 2, "remaining": 1_997}


def test_a_lease_is_only_as_long_as_the_first_try_allows(desk: Desk, proxy: Proxy, fault: Fault) -> None:
    owned = desk.own(url=proxy.url)
    before = owned.lease_ends
    proxy.fault = fault
    claim(owned, 50)
    lease = desk.value("SELECT extract(epoch FROM lease_until - clock_timestamp())::float FROM range WHERE id = %s", 1)
    assert before < owned.lease_ends
    assert owned.lease_ends - time.clock_gettime(time.CLOCK_BOOTTIME) <= lease - FAST.margin_seconds


def test_a_write_blocks_while_the_ledger_is_away_until_it_is_abandoned(desk: Desk, proxy: Proxy) -> None:
    owned = desk.own(url=proxy.url)
    sent = outcomes(owned, claim(owned, 50))
    proxy.__exit__()
    writing = desk.soon(owned.record, sent)
    assert owned.troubled.wait(10)
    assert not writing.done()
    owned.abandon()
    with pytest.raises(LedgerUnavailable):
        writing.result(10)
    assert desk.totals() == {"planned": 2_000, "remaining": 2_000}


def test_a_position_is_not_recorded_twice_nor_before_it_is_claimed(desk: Desk) -> None:
    owned = desk.own()
    now = claim(owned, 5)
    owned.record(outcomes(owned, now))
    for wrong in (outcomes(owned, [3]), outcomes(owned, [7]), [*outcomes(owned, [3]), *outcomes(owned, [3])]):
        with pytest.raises(ValueError, match="open, each once"):
            owned.record(wrong)
    with pytest.raises(ValueError, match="cannot be recorded"):
        owned.record(outcomes(owned, claim(owned, 1), OutcomeKind.CANCELLED))
    with pytest.raises(ValueError, match="each once"):
        owned.claim(9, Positions.span(6, 8))
    assert desk.totals() == {"planned": 2_000, "sent": 5, "remaining": 1_995}


def test_the_database_itself_refuses_what_does_not_add_up(desk: Desk) -> None:
    desk.own()
    for lie in ("sent = sent + 1", "open = '{[0,5)}'", "pos = 501", "resending = '{[0,2)}'", "state = 'Finished'"):
        with pytest.raises(Exception, match="violates check constraint"):
            desk.sql(f"UPDATE range SET {lie} WHERE id = 1")


def test_what_the_relay_said_is_data_whatever_it_is(desk: Desk) -> None:
    owned = desk.own()
    said = 'a\tb\nc\\d\r\0e \ud800 "é" \\N'
    (one,) = outcomes(owned, claim(owned, 1), OutcomeKind.FAILED, code="550", enhanced="5.1.1", reply=said)
    owned.record([one])
    assert desk.sql("SELECT code, enhanced, reply, address_hash FROM delivery") == [
        ("550", "5.1.1", 'a\tb\nc\\d\re ? "é" \\N', None)
    ]
