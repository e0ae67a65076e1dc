"""How seldom the reasons of failed recipients are counted."""

from __future__ import annotations

from datetime import UTC, datetime

from mailfleet_operator.failures import KEPT, PAUSE_SECONDS, ROUND_SECONDS, SHARE, Failures
from mailfleet_sender.contract.accounts import Failure, RunState, Totals
from mailfleet_sender.contract.campaign import OnUncertain
from mailfleet_sender.errors import LedgerUnavailable
from mailfleet_sender.ledger import RunRow

ENDED = datetime(2026, 12, 1, tzinfo=UTC)


def row(number: int = 5, *, ended: bool = False, retries: int = 0) -> RunRow:
    return RunRow(
        number,
        "marketing",
        "autumn",
        "1",
        "hash",
        OnUncertain.SKIP,
        RunState.COMPLETE if ended else RunState.OPEN,
        plan_wanted=1,
        plan_id=1,
        key_type="bigint",
        planned=100,
        skipped=0,
        created_at=ENDED,
        started_at=ENDED,
        ended_at=ENDED if ended else None,
        retry_generation=retries,
    )


class Desk:
    """A clock, and a ledger that says how often it was asked."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.now, self.seconds = 100.0, seconds
        self.away = False
        self.asked: list[tuple[int, bool]] = []
        self.failures = Failures(self.count, lambda: self.now)

    def count(self, run_id: int, most: int, *, retried: bool) -> tuple[Failure, ...]:
        self.asked.append((run_id, retried))
        self.now += self.seconds
        if self.away:
            raise LedgerUnavailable("away")
        return (Failure("5.1.1", len(self.asked), "no such user"),)

    def look(self, run: RunRow, failed: int, sent: int = 0, *, after: float = 0.0) -> int | None:
        """One look at one run; the number of the count that it shows."""
        self.now += after
        self.failures.begin()
        found = self.failures.of(run, Totals(planned=100, failed=failed, sent=sent))
        return found[0].count if found else None


def test_nobody_failed_is_known_without_counting() -> None:
    desk = Desk()
    desk.failures.begin()
    assert desk.failures.of(row(), Totals(planned=100, sent=100)) == ()
    assert not desk.asked


def test_what_has_not_changed_is_counted_once() -> None:
    desk = Desk()
    assert [desk.look(row(), 3, sent=n, after=1_000) for n in range(5)] == [1] * 5


def test_what_changes_is_counted_each_half_minute() -> None:
    desk = Desk()
    looks = [desk.look(row(), failed, after=2) for failed in range(1, 62)]
    assert len(desk.asked) == 1 + 120 // PAUSE_SECONDS
    assert looks[0] == 1
    assert looks[14] == 1
    assert looks[16] == 2


def test_a_slow_count_is_a_hundredth_of_the_time() -> None:
    desk = Desk(seconds=2.0)
    for failed in range(1, 1_001):
        desk.look(row(), failed, after=2)
    counting = 2.0 * len(desk.asked)
    assert counting <= (desk.now - 100) / SHARE + 2.0


def test_the_end_is_counted_at_once() -> None:
    desk = Desk()
    assert desk.look(row(), 3) == 1
    assert desk.look(row(), 4, after=2) == 1
    assert desk.look(row(ended=True), 4, after=2) == 2


def test_after_a_retry_every_change_counts_for_the_same_number_may_have_failed_otherwise() -> None:
    desk = Desk()
    assert desk.look(row(retries=1), 3, sent=5) == 1
    assert desk.look(row(retries=1), 3, sent=6, after=PAUSE_SECONDS) == 2
    assert {retried for _, retried in desk.asked} == {True}


def test_a_look_at_many_runs_does_not_count_for_long() -> None:
    desk = Desk(seconds=ROUND_SECONDS)
    runs = [row(n) for n in range(1, 11)]

    def look() -> list[bool]:
        desk.now += 2
        desk.failures.begin()
        return [desk.failures.of(run, Totals(failed=1)) is not None for run in runs]

    known = look()
    assert known.count(True) < 4
    for _ in runs:
        known = look()
    assert all(known), "each has its turn"


def test_a_ledger_that_is_away_is_asked_again_later_and_what_was_known_stays() -> None:
    desk = Desk()
    assert desk.look(row(), 3) == 1
    desk.away = True
    assert desk.look(row(), 4, after=PAUSE_SECONDS) == 1
    assert desk.look(row(), 4, after=2) == 1
    assert len(desk.asked) == 2
    desk.away = False
    assert desk.look(row(), 4, after=PAUSE_SECONDS) == 3


def test_it_does_not_remember_without_end() -> None:
    desk = Desk()
    for n in range(2 * KEPT):
        desk.look(row(n), 1)
    assert len(desk.failures._known) <= KEPT
