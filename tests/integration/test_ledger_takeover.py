"""Owners, dead and undead, and their successors (LEDGER section 6)."""

from __future__ import annotations

import dataclasses
import io
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from ledgers import FAST, PAGE, Desk, claim, outcomes, send_all
from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.contract.campaign import OnUncertain
from mailfleet_sender.errors import Fenced, LedgerRewound, LedgerUnavailable
from mailfleet_sender.ledger import EMPTY, Ended, Leased, OwnedRange, Positions, Timing, change
from proxy import Proxy
from services import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENDED = dataclasses.replace(FAST, lease_seconds=0.001)
"""Leases that have ended as soon as they are given: for what may happen between any two statements."""


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    with Desk(database_url) as desk:
        yield desk


@pytest.fixture
def resending(database_url: str) -> Iterator[Desk]:
    with Desk(database_url, on_uncertain=OnUncertain.RESEND) as desk:
        yield desk


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    with Proxy(database_url) as proxy:
        yield proxy


def test_what_a_dead_owner_left_open_is_uncertain_by_name(desk: Desk) -> None:
    dead = desk.own()
    claim(dead, 30)
    dead.record(outcomes(dead, range(10)))
    assert isinstance(desk.acquire(), Leased)
    desk.expire()
    successor = desk.own()
    assert (successor.open, successor.position, successor.resend) == (EMPTY, 30, EMPTY)
    assert desk.totals() == {"planned": 2_000, "sent": 10, "uncertain": 20, "remaining": 1_970}
    assert desk.books().keys("uncertain") == {f"k{i}" for i in range(10, 30)}
    assert {k for (k,) in desk.sql("SELECT key FROM doubt")} == {f"k{i}" for i in range(10, 30)}
    send_all(successor)
    assert desk.totals() == {"planned": 2_000, "sent": 480, "uncertain": 20, "remaining": 1_500}


def test_an_owner_frozen_while_it_copies_outcomes_holds_up_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Postgres ends no session that is in the middle of a COPY, neither for its idling nor for its statement's time."""
    owned = desk.own()
    claim(owned, 3)
    desk.expire()
    frozen, thawed = threading.Event(), threading.Event()

    class Freezing(io.StringIO):
        def read(self, size: int | None = -1) -> str:
            frozen.set()
            assert thawed.wait(30)
            return super().read(size)

    monkeypatch.setattr(change, "io", SimpleNamespace(StringIO=Freezing))
    record = desk.soon(owned.record, outcomes(owned, range(3)))
    assert frozen.wait(10)
    monkeypatch.undo()
    try:
        successor = desk.own()
    finally:
        thawed.set()
    with pytest.raises(Fenced):
        record.result(10)
    send_all(successor)
    assert desk.totals() == {"planned": 2_000, "sent": 497, "uncertain": 3, "remaining": 1_500}


def test_waiting_and_decided_rows_out_of_order_then_a_drain_and_a_successor(desk: Desk) -> None:
    owned = desk.own()
    skipped = outcomes(owned, [7, 8], OutcomeKind.SKIPPED, code="RecipientGone")
    owned.claim(100, Positions.span(0, 100) - Positions.of([3, 4, 7, 8]), Positions.of([3, 4]), skipped)
    second = claim(owned, 100)
    owned.record(outcomes(owned, sorted(second)[60:]))
    owned.record(outcomes(owned, range(10, 20), OutcomeKind.FAILED, code="550"))
    assert desk.totals() == {"planned": 2_000, "sent": 40, "failed": 10, "skipped": 2, "remaining": 1_948}
    owned.claim_returned(Positions.of([4]))
    owned.drain()
    successor = desk.own()
    assert len(successor.returned) == 200 - 2 - 50
    send_all(successor)
    assert successor.ended
    assert desk.totals() == {"planned": 2_000, "sent": 488, "failed": 10, "skipped": 2, "remaining": 1_500}


def test_a_takeover_that_waits_for_an_outcome_finds_nothing_uncertain(desk: Desk, proxy: Proxy) -> None:
    owned = desk.own(url=proxy.url, timing=ENDED)
    sent = outcomes(owned, claim(owned, 50))
    proxy.fault = "pause"
    recording = desk.soon(owned.record, sent)
    assert proxy.paused.wait(10)
    taking = desk.soon(desk.own)
    desk.until_blocked()
    proxy.go()
    recording.result(10)
    assert taking.result(10).position == 50
    assert desk.totals() == {"planned": 2_000, "sent": 50, "remaining": 1_950}


def test_a_takeover_that_waits_for_a_write_finds_its_lease_renewed(desk: Desk, proxy: Proxy) -> None:
    owned = desk.own(url=proxy.url)
    sent = outcomes(owned, claim(owned, 50))
    desk.expire()
    proxy.fault = "pause"
    recording = desk.soon(owned.record, sent)
    assert proxy.paused.wait(10)
    taking = desk.soon(desk.acquire)
    desk.until_blocked()
    proxy.go()
    recording.result(10)
    assert isinstance(taking.result(10), Leased)
    send_all(owned)


def test_an_outcome_that_waits_for_a_takeover_is_fenced_and_absorbed_later(desk: Desk, proxy: Proxy) -> None:
    owned = desk.own(timing=ENDED)
    sent = outcomes(owned, claim(owned, 50))
    proxy.fault = "pause"
    taking = desk.soon(desk.own, url=proxy.url)
    assert proxy.paused.wait(10)
    recording = desk.soon(owned.record, sent)
    desk.until_blocked()
    proxy.go()
    successor = taking.result(10)
    with pytest.raises(Fenced):
        recording.result(10)
    assert owned.troubled.is_set()
    assert desk.totals() == {"planned": 2_000, "uncertain": 50, "remaining": 1_950}
    owned.leave_late(sent)
    assert desk.runs.absorb_late(desk.run) == 0  # its range is open: it is the owner's to absorb
    send_all(successor)
    assert desk.runs.late([desk.run]) == {desk.run: 50}
    absorbing = [desk.soon(desk.runs.absorb_late, desk.run) for _ in range(2)]
    assert sum(a.result(10) for a in absorbing) == 50
    assert desk.runs.late([desk.run]) == {}
    assert desk.totals() == {"planned": 2_000, "sent": 500, "remaining": 1_500}


def test_a_late_outcome_of_what_was_recorded_after_all_is_dropped(desk: Desk) -> None:
    owned = desk.own(timing=ENDED)
    sent = outcomes(owned, claim(owned, 50))
    owned.record(sent[:20])
    desk.own(timing=ENDED)
    owned.leave_late(sent)
    desk.own()
    assert desk.value("SELECT count(*) FROM late_outcome") == 0
    assert desk.totals() == {"planned": 2_000, "sent": 50, "remaining": 1_950}


def test_a_zombie_claims_nothing(desk: Desk) -> None:
    zombie = desk.own(timing=ENDED)
    claim(zombie, 50)
    desk.own(timing=ENDED)
    for write in (lambda: claim(zombie, 50), zombie.renew, zombie.drain, lambda: zombie.claim_returned(EMPTY)):
        with pytest.raises(Fenced):
            write()
    assert desk.totals() == {"planned": 2_000, "uncertain": 50, "remaining": 1_950}


def test_a_renewal_is_fenced_too_when_it_is_the_first_to_see(desk: Desk) -> None:
    zombie = desk.own(timing=ENDED)
    desk.own()
    with pytest.raises(Fenced):
        zombie.renew()


def test_a_renewal_lengthens_the_lease_and_nothing_else(desk: Desk) -> None:
    owned = desk.own()
    before, ends, seq = desk.value("SELECT lease_until FROM range WHERE id = 1"), owned.lease_ends, owned.seq
    owned.renew()
    assert desk.value("SELECT lease_until FROM range WHERE id = 1") > before
    assert owned.lease_ends > ends
    assert desk.value("SELECT seq FROM range WHERE id = 1") == owned.seq == seq


def test_a_renewal_without_an_answer_promises_nothing(desk: Desk, proxy: Proxy) -> None:
    owned = desk.own(url=proxy.url)
    ends = owned.lease_ends
    proxy.fault = "after"
    with pytest.raises(LedgerUnavailable):
        owned.renew()
    assert owned.lease_ends == ends
    owned.renew()
    assert owned.lease_ends > ends


def test_a_sender_frozen_inside_its_transaction_is_thrown_out(desk: Desk, proxy: Proxy) -> None:
    owned = desk.own(url=proxy.url, timing=ENDED)
    sent = outcomes(owned, claim(owned, 50))
    proxy.fault = "pause"  # the server waits for the client's next word, as for a frozen one
    recording = desk.soon(owned.record, sent)
    assert proxy.paused.wait(10)
    successor = desk.own()  # although the frozen one still holds its connection
    proxy.go()
    with pytest.raises(Fenced):
        recording.result(10)
    assert desk.totals() == {"planned": 2_000, "uncertain": 50, "remaining": 1_950}
    send_all(successor)


def test_a_takeover_that_waits_for_a_drain_takes_over_what_was_given_back(desk: Desk, proxy: Proxy) -> None:
    owned = desk.own(url=proxy.url, timing=ENDED)
    owned.record(outcomes(owned, claim(owned, 50).take(20)))
    proxy.fault = "pause"
    draining = desk.soon(owned.drain)
    assert proxy.paused.wait(10)
    taking = desk.soon(desk.own)
    desk.until_blocked()
    proxy.go()
    draining.result(10)
    assert taking.result(10).returned == Positions.span(20, 50)
    assert desk.totals() == {"planned": 2_000, "sent": 20, "remaining": 1_980}


def test_a_drain_that_waits_for_a_takeover_is_fenced(desk: Desk, proxy: Proxy) -> None:
    owned = desk.own(timing=ENDED)
    claim(owned, 50)
    proxy.fault = "pause"
    taking = desk.soon(desk.own, url=proxy.url)
    assert proxy.paused.wait(10)
    draining = desk.soon(owned.drain)
    desk.until_blocked()
    proxy.go()
    taking.result(10)
    with pytest.raises(Fenced):
        draining.result(10)
    assert desk.totals() == {"planned": 2_000, "uncertain": 50, "remaining": 1_950}


def test_settling_waits_for_a_drain_and_then_changes_nothing_but_the_epoch(desk: Desk, proxy: Proxy) -> None:
    owned = desk.own(url=proxy.url, timing=ENDED)
    claim(owned, 50)
    proxy.fault = "pause"
    draining = desk.soon(owned.drain)
    assert proxy.paused.wait(10)
    settling = desk.soon(desk.runs.settle, owned.id)
    desk.until_blocked()
    proxy.go()
    draining.result(10)
    assert settling.result(10)
    assert desk.sql("SELECT owner, epoch, returned::text FROM range WHERE id = 1") == [(None, 2, "{[0,50)}")]
    assert desk.totals() == {"planned": 2_000, "remaining": 2_000}


def test_a_lease_that_ends_an_hour_ahead_is_a_clock_step_and_has_ended(desk: Desk) -> None:
    stepped = dataclasses.replace(FAST, lease_seconds=3_600)
    desk.own(timing=stepped)
    assert isinstance(desk.acquire(), OwnedRange)


def test_the_wave_that_a_job_was_made_for_must_be_in_the_ledger(desk: Desk) -> None:
    with pytest.raises(LedgerRewound):
        desk.acquire(wave=7)


def test_a_ledger_that_lost_a_commit_is_noticed(desk: Desk) -> None:
    owned = desk.own()
    claim(owned, 50)
    desk.sql("CREATE TABLE backup AS SELECT * FROM range WHERE id = 1")
    owned.record(outcomes(owned, range(10)))
    desk.sql("UPDATE range r SET seq = b.seq, open = b.open, sent = b.sent FROM backup b WHERE r.id = b.id")
    for write in (lambda: claim(owned, 50), lambda: owned.record(outcomes(owned, [20])), owned.drain):
        with pytest.raises(LedgerRewound):
            write()


def test_a_twin_with_the_same_epoch_and_seq_is_told_by_its_owner(desk: Desk) -> None:
    desk.sql("CREATE TABLE backup AS SELECT * FROM range WHERE id = 1")
    lost = desk.own()  # a fail-over loses this takeover ...
    desk.sql("UPDATE range r SET (epoch, seq, owner, lease_until) = (b.epoch, b.seq, NULL, NULL) FROM backup b"
             " WHERE r.id = b.id")  # fmt: skip
    twin = desk.own()  # ... and a third owner comes to the same numbers
    assert (lost.epoch, lost.seq) == (twin.epoch, twin.seq)
    with pytest.raises(Fenced):
        claim(lost, 10)
    claim(twin, 10)


def test_a_twin_that_ended_the_range_is_not_taken_for_ourselves(desk: Desk, proxy: Proxy) -> None:
    desk.sql("CREATE TABLE backup AS SELECT * FROM range WHERE id = 1")
    lost = desk.own(url=proxy.url)
    desk.sql("UPDATE range r SET (epoch, seq, owner, lease_until) = (b.epoch, b.seq, NULL, NULL) FROM backup b"
             " WHERE r.id = b.id")  # fmt: skip
    twin = desk.own()
    skipped = outcomes(twin, range(PAGE), OutcomeKind.SKIPPED)
    twin.claim(PAGE, EMPTY, EMPTY, skipped)
    assert (twin.ended, twin.seq) == (True, lost.seq + 1)
    with pytest.raises(Fenced):
        claim(lost, 10)


def test_under_resend_each_doubt_is_sent_once_more_one_at_a_time(resending: Desk) -> None:
    first = resending.own(timing=ENDED)
    claim(first, 10)
    second = resending.own(timing=ENDED)
    assert second.resend == Positions.span(0, 10)
    assert second.claim_resend(0)
    with pytest.raises(ValueError, match="cannot be re-sent"):
        second.claim_resend(1)
    third = resending.own(timing=ENDED)  # the second was killed while it sent k0 again
    assert third.resend == Positions.span(1, 10)
    assert resending.totals() == {"planned": 2_000, "uncertain": 10, "remaining": 1_990}
    first.leave_late(outcomes(first, [5]))  # the truth about k5 arrives while it waits
    fourth = resending.own()
    assert fourth.resend == Positions.span(1, 10) - Positions.of([5])
    while fourth.resend:
        (position,) = fourth.resend.take(1)
        assert fourth.claim_resend(position)
        fourth.record(outcomes(fourth, [position]))
    assert resending.totals() == {"planned": 2_000, "sent": 9, "uncertain": 1, "remaining": 1_990}
    assert resending.books().keys("uncertain") == {"k0"}


def test_a_late_outcome_that_comes_before_the_re_send_stops_it(resending: Desk) -> None:
    first = resending.own(timing=ENDED)
    claim(first, 2)
    second = resending.own()
    first.leave_late(outcomes(first, [0]))
    assert second.claim_resend(0) is False
    assert (second.resend, second.resending) == (Positions.of([1]), EMPTY)
    assert resending.totals() == {"planned": 2_000, "sent": 1, "uncertain": 1, "remaining": 1_998}


def test_late_outcomes_that_settle_the_last_doubts_end_the_range(resending: Desk) -> None:
    first = resending.own(timing=ENDED)
    sent = outcomes(first, claim(first, PAGE))
    second = resending.own()
    first.leave_late(sent)
    assert second.claim_resend(0) is False
    assert second.ended
    assert resending.totals() == {"planned": 2_000, "sent": 500, "remaining": 1_500}


def test_what_an_owner_itself_lost_is_sent_once_more_under_resend_and_then_stays(resending: Desk) -> None:
    owned = resending.own()
    claim(owned, PAGE)
    owned.record(outcomes(owned, range(2, PAGE)))
    owned.record(outcomes(owned, [0, 1], OutcomeKind.UNCERTAIN))
    assert (owned.resend, owned.ended) == (Positions.of([0, 1]), False)
    owned.claim_resend(0)
    owned.record(outcomes(owned, [0], OutcomeKind.UNCERTAIN))
    assert owned.resend == Positions.of([1])
    owned.claim_resend(1)
    owned.drain()  # surely not sent: it may be sent by the successor
    successor = resending.own()
    assert successor.resend == Positions.of([1])
    successor.claim_resend(1)
    successor.record(outcomes(successor, [1]))
    assert successor.ended
    assert resending.totals() == {"planned": 2_000, "sent": 499, "uncertain": 1, "remaining": 1_500}


def test_a_key_is_sent_once_more_in_a_run_not_once_more_in_each_wave(resending: Desk) -> None:
    first = resending.own(timing=ENDED)
    claim(first, 1)
    second = resending.own()
    second.claim_resend(0)
    second.record(outcomes(second, [0], OutcomeKind.DEFERRED, retry_after_seconds=0))
    wave = resending.runs.retry_wave(resending.run, PAGE)
    assert wave == 2
    third = resending.own(wave=wave, timing=ENDED)
    claim(third, 1)
    fourth = resending.acquire(wave=wave)  # the third was killed: k0 is in doubt for the second time
    assert isinstance(fourth, Ended)
    assert resending.totals() == {"planned": 2_000, "uncertain": 1, "remaining": 1_999}

    lost = outcomes(second, claim(second, 1), OutcomeKind.UNCERTAIN)  # the same, by an owner that lives
    second.record(lost)
    second.claim_resend(1)
    second.record(outcomes(second, [1], OutcomeKind.DEFERRED, retry_after_seconds=0))
    again = resending.own(wave=resending.runs.retry_wave(resending.run, PAGE) or 0)
    again.record(outcomes(again, claim(again, 1), OutcomeKind.UNCERTAIN))
    assert (again.ended, again.resend) == (True, EMPTY)
    assert resending.totals() == {"planned": 2_000, "uncertain": 2, "remaining": 1_998}


def test_under_skip_what_is_in_doubt_is_never_open_again(desk: Desk) -> None:
    owned = desk.own()
    claim(owned, PAGE)
    owned.record(outcomes(owned, range(PAGE), OutcomeKind.UNCERTAIN))
    assert owned.ended
    assert desk.totals() == {"planned": 2_000, "uncertain": 500, "remaining": 1_500}


def test_outcomes_wait_out_a_ledger_that_was_killed(tmp_path: Path) -> None:
    with PostgresServer(tmp_path) as server, Desk(server.database()) as desk:
        owned = desk.own()
        sent = outcomes(owned, claim(owned, 50))
        server.kill()
        recording = desk.soon(owned.record, sent)
        assert owned.troubled.wait(20)
        server.start()
        recording.result(30)
        assert not owned.troubled.is_set()
        assert desk.totals() == {"planned": 2_000, "sent": 50, "remaining": 1_950}


def test_the_timing_is_what_the_lease_is(desk: Desk) -> None:
    owned = desk.own(timing=Timing(lease_seconds=8, margin_seconds=3))
    left = owned.lease_ends - time.clock_gettime(time.CLOCK_BOOTTIME)
    assert 4 < left <= 5
