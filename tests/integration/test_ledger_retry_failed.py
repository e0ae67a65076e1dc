"""retryFailed: once a generation, each of those that failed so once more; the sum holds meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from books import sample
from ledgers import PAGE, Desk, claim, outcomes, send_all
from mailfleet_sender.contract.accounts import OutcomeKind, RunState, WaveKind
from mailfleet_sender.contract.campaign import OnUncertain
from mailfleet_sender.errors import Fenced
from mailfleet_sender.ledger import OwnedRange, Positions
from proxy import Proxy
from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILED, SENT, UNCERTAIN = OutcomeKind.FAILED, OutcomeKind.SENT, OutcomeKind.UNCERTAIN
CODES = ["5.7.1", "552"]


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    with Desk(database_url) as desk:
        yield desk


def fail(owned: OwnedRange, count: int, code: str, enhanced: str | None = None) -> None:
    owned.record(outcomes(owned, claim(owned, count), FAILED, code=code, enhanced=enhanced))


def complete(desk: Desk) -> None:
    """Ranges 0 and 1: 10 of 550 5.1.1, 20 of 550 5.7.1, 30 of 552, 5 uncertain; the rest is sent."""
    first, second = desk.own(0), desk.own(1)
    fail(first, 10, "550", "5.1.1")
    fail(first, 20, "550", "5.7.1")
    fail(second, 30, "552")
    second.record(outcomes(second, claim(second, 5), UNCERTAIN))
    send_all(first)
    send_all(second)
    for index in (2, 3):
        send_all(desk.own(index))
    assert desk.runs.complete(desk.run)


def keys_of(owned: OwnedRange) -> set[str | None]:
    return {k.key for k in owned.recipients(Positions.span(0, owned.planned))}


def test_a_complete_run_is_opened_again_for_those_that_failed_so(desk: Desk) -> None:
    complete(desk)
    assert desk.runs.retry_failed(desk.run, 1, CODES, PAGE) == 2
    row = desk.runs.get(desk.run)
    assert row
    assert (row.state, row.ended_at, row.retry_generation) == (RunState.OPEN, None, 1)
    assert desk.totals() == {"planned": 2_000, "sent": 1_935, "failed": 60, "uncertain": 5}
    assert not desk.runs.complete(desk.run)
    (wave,) = desk.runs.waves([desk.run])[desk.run][1:]
    assert (wave.kind, wave.ranges, wave.planned) == (WaveKind.RETRY, 1, 50)
    again = desk.own(wave=2)
    assert keys_of(again) == {f"k{i}" for i in (*range(10, 30), *range(500, 530))}
    assert {k.attempt for k in again.recipients(Positions.span(0, 50))} == {1}
    assert {k.since for k in again.recipients(Positions.span(0, 50))} == {None}
    again.record(outcomes(again, claim(again, 30)))
    assert desk.totals() == {"planned": 2_000, "sent": 1_965, "failed": 30, "uncertain": 5}
    again.record(outcomes(again, claim(again, 5), OutcomeKind.DEFERRED, retry_after_seconds=0))
    assert desk.totals() == {"planned": 2_000, "sent": 1_965, "failed": 25, "deferred": 5, "uncertain": 5}
    assert desk.runs.retry_failed(desk.run, 2, CODES, PAGE) is None  # generation 1 has not ended
    assert desk.runs.get(desk.run) == row
    fail(again, 15, "550", "5.7.1")
    assert again.ended
    assert desk.runs.retry_wave(desk.run, PAGE) == 3
    deferred = desk.own(wave=3)
    assert {k.attempt for k in deferred.recipients(Positions.span(0, 5))} == {2}
    send_all(deferred)
    assert desk.runs.complete(desk.run)
    assert desk.totals() == {"planned": 2_000, "sent": 1_970, "failed": 25, "uncertain": 5}
    assert desk.runs.retry_failed(desk.run, 2, CODES, PAGE) == 4
    third = desk.own(wave=4)
    assert third.planned == 15
    assert {k.attempt for k in third.recipients(Positions.span(0, 15))} == {2}
    send_all(third)
    assert desk.runs.complete(desk.run)
    assert desk.totals() == {"planned": 2_000, "sent": 1_985, "failed": 10, "uncertain": 5}


def test_the_same_or_a_lower_generation_or_nobody_to_retry_does_nothing(desk: Desk) -> None:
    complete(desk)
    before = desk.totals()
    assert desk.runs.retry_failed(desk.run, 3, ["4.7.0"], PAGE) is None
    row = desk.runs.get(desk.run)
    assert row
    assert (row.state, row.retry_generation, row.retried) == (RunState.COMPLETE, 3, 0)
    for generation in (1, 3):
        assert desk.runs.retry_failed(desk.run, generation, CODES, PAGE) is None
    assert desk.totals() == before
    assert len(desk.runs.waves([desk.run])[desk.run]) == 1
    made = [desk.soon(type(desk.runs)(desk.engine()).retry_failed, desk.run, 4, CODES, PAGE) for _ in range(3)]
    assert sorted(str(m.result(20)) for m in made) == ["2", "None", "None"]
    assert desk.totals() == before
    row = desk.runs.get(desk.run)
    assert row
    assert row.retried, "the last generation came to somebody"


def test_the_uncertain_are_retried_only_by_name_and_each_verdict_has_its_ranges(desk: Desk) -> None:
    complete(desk)
    assert desk.runs.retry_failed(desk.run, 1, ["550", "Uncertain"], 1) == 2
    assert desk.sql("SELECT idx, from_verdict, planned, first_page FROM range WHERE wave = 2 ORDER BY idx") == [
        (0, "failed", 30, 0),
        (1, "uncertain", 5, 1),
    ]
    assert desk.totals() == {"planned": 2_000, "sent": 1_935, "failed": 60, "uncertain": 5}
    doubted = desk.own(1, wave=2)
    assert keys_of(doubted) == {f"k{i}" for i in range(530, 535)}
    claim(doubted, 5)
    doubted.record(outcomes(doubted, range(3)))
    doubted.record(outcomes(doubted, range(3, 5), UNCERTAIN))
    assert doubted.ended
    assert desk.totals() == {"planned": 2_000, "sent": 1_938, "failed": 60, "uncertain": 2}
    send_all(desk.own(0, wave=2))
    assert desk.runs.complete(desk.run)
    assert desk.runs.retry_failed(desk.run, 2, ["Uncertain"], PAGE) == 3
    last = desk.own(wave=3)
    assert (keys_of(last), last.planned) == ({"k533", "k534"}, 2)
    send_all(last)
    assert desk.totals() == {"planned": 2_000, "sent": 1_970, "failed": 30}


def test_a_late_outcome_of_a_retried_doubt_is_dropped_and_one_before_it_spares_the_retry(desk: Desk) -> None:
    frozen = desk.own(0)
    made = outcomes(frozen, claim(frozen, 40))
    desk.expire()
    successor = desk.own(0)
    with pytest.raises(Fenced):
        frozen.record(made)
    frozen.leave_late(made[:10])
    send_all(successor)
    assert desk.runs.absorb_late(desk.run) == 10
    assert desk.runs.retry_failed(desk.run, 1, ["Uncertain"], PAGE) == 2
    assert desk.totals() == {"planned": 2_000, "sent": 470, "uncertain": 30, "remaining": 1_500}
    frozen.leave_late(made)
    assert desk.runs.absorb_late(desk.run) == 0
    again = desk.own(wave=2)
    assert again.planned == 30
    send_all(again)
    assert desk.totals() == {"planned": 2_000, "sent": 500, "remaining": 1_500}


def test_it_runs_beside_an_open_wave_whose_owner_goes_on(database_url: str) -> None:
    with Desk(database_url, keys=2 * PAGE, on_uncertain=OnUncertain.RESEND) as desk:
        living = desk.own(0)
        fail(living, 20, "552")
        living.record(outcomes(living, claim(living, 3), UNCERTAIN))  # to be sent once more: not for a retry
        assert desk.runs.retry_failed(desk.run, 1, ["552", "Uncertain"], PAGE) == 2
        living.record(outcomes(living, claim(living, 10)))
        again = desk.own(wave=2)
        assert again.planned == 20
        send_all(again)
        assert desk.totals() == {"planned": 1_000, "sent": 30, "uncertain": 3, "remaining": 967}
        for position in list(living.resend):
            assert living.claim_resend(position)
            living.record(outcomes(living, [position]))
        send_all(living)
        send_all(desk.own(1))
        assert desk.runs.complete(desk.run)
        assert desk.totals() == {"planned": 1_000, "sent": 1_000}


def test_a_run_that_ended_in_another_way_stays_as_it_is_and_a_cancelled_retry_counts_once(desk: Desk) -> None:
    complete(desk)
    assert desk.runs.retry_failed(desk.run, 1, [*CODES, "Uncertain"], PAGE) == 2
    owned = desk.own(0, wave=2)
    owned.record(outcomes(owned, claim(owned, 20)))
    owned.drain()
    assert desk.runs.close(desk.run, RunState.CANCELLED)
    assert desk.totals() == {"planned": 2_000, "sent": 1_955, "failed": 10, "cancelled": 35}
    assert desk.runs.retry_failed(desk.run, 2, CODES, PAGE) is None
    row = desk.runs.get(desk.run)
    assert row
    assert (row.state, row.retry_generation) == (RunState.CANCELLED, 1)


@pytest.mark.parametrize("fault", ["before", "after"])
def test_a_commit_of_unknown_outcome_is_repeated_at_the_next_tick(desk: Desk, fault: str) -> None:
    from mailfleet_sender.errors import LedgerUnavailable  # noqa: PLC0415

    complete(desk)
    with Proxy(desk.url) as proxy:
        runs = type(desk.runs)(desk.engine(proxy.url), desk.runs._timing)
        runs.get(desk.run)
        proxy.fault = fault  # type: ignore[assignment]
        with pytest.raises(LedgerUnavailable):
            runs.retry_failed(desk.run, 1, CODES, PAGE)
        wait_for("the commit is over", lambda: fault == "before" or desk.runs.open_ranges(desk.run))
        runs.retry_failed(desk.run, 1, CODES, PAGE)
    assert [w.number for w in desk.runs.waves([desk.run])[desk.run]] == [1, 2]
    sample(desk.url, desk.run)
    send_all(desk.own(wave=2))
    assert desk.totals() == {"planned": 2_000, "sent": 1_985, "failed": 10, "uncertain": 5}
