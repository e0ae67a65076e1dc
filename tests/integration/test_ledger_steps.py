"""Canary steps in the ledger: one wave after the other is let begin, and the sum holds at every moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledgers import Desk, page, send_all
from mailfleet_sender.contract.accounts import OutcomeKind, PauseReason, RunState, WaveKind
from mailfleet_sender.errors import PlanMismatch
from mailfleet_sender.ledger import OwnedRange
from mailfleet_sender.ledger.pages import fate_of, first_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailfleet_sender.ledger.values import StepRow, WaveRow
    from services import PostgresServer


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    with Desk(database_url, start=False) as desk:
        yield desk


def begun(desk: Desk, keys: int, *steps: int, skipped: int = 0) -> Desk:
    desk.plan(keys, skipped, steps)
    assert desk.runs.start(desk.run, desk.hash, 500)
    return desk


def waves(desk: Desk) -> list[tuple[int, WaveKind, int, bool]]:
    found: list[WaveRow] = desk.runs.waves([desk.run])[desk.run]
    return [(w.number, w.kind, w.planned, w.held) for w in found]


def steps(desk: Desk) -> list[StepRow]:
    return desk.runs.steps([desk.run]).get(desk.run, [])


def send(desk: Desk, wave: int, kind: OutcomeKind = OutcomeKind.SENT) -> None:
    (found,) = [w for w in desk.runs.waves([desk.run])[desk.run] if w.number == wave]
    for index in range(found.ranges):
        owned = desk.acquire(index, wave=wave)
        if isinstance(owned, OwnedRange):
            send_all(owned, kind, code="550" if kind is OutcomeKind.FAILED else None, **due(kind))


def due(kind: OutcomeKind) -> dict[str, int]:
    return {"retry_after_seconds": 0} if kind is OutcomeKind.DEFERRED else {}


def test_the_start_makes_a_wave_of_each_step_and_lets_the_first_begin(desk: Desk) -> None:
    begun(desk, 3_000, 100, 600, skipped=7)
    assert waves(desk) == [
        (1, WaveKind.CANARY, 100, False),
        (2, WaveKind.CANARY, 600, True),
        (3, WaveKind.MAIN, 2_300, True),
    ]
    assert desk.totals() == {"planned": 3_007, "skipped": 7, "remaining": 3_000}
    assert [(s.step, s.planned, s.held, s.ended_at) for s in steps(desk)] == [
        (1, 100, False, None),
        (2, 600, True, None),
    ]


def test_without_steps_main_begins_at_once(desk: Desk) -> None:
    begun(desk, 700)
    assert waves(desk) == [(1, WaveKind.MAIN, 700, False)]
    assert steps(desk) == []


def test_a_small_audience_is_its_steps_and_nothing_else(desk: Desk) -> None:
    begun(desk, 120, 100, 20)
    assert waves(desk) == [(1, WaveKind.CANARY, 100, False), (2, WaveKind.CANARY, 20, True)]
    for step in (1, 2):
        send(desk, step)
        desk.runs.end_step(desk.run, step)
        desk.runs.pass_step(desk.run, step)
    assert desk.runs.complete(desk.run)
    assert desk.totals() == {"planned": 120, "sent": 120}


def test_a_step_passes_when_it_has_ended_and_only_the_next_one_begins(desk: Desk) -> None:
    begun(desk, 3_000, 100, 600)
    assert not desk.runs.end_step(desk.run, 1)  # its range is open
    assert not desk.runs.pass_step(desk.run, 1)
    send(desk, 1)
    assert desk.runs.end_step(desk.run, 1)
    assert not desk.runs.end_step(desk.run, 1)  # its time is not written anew
    assert not desk.runs.end_step(desk.run, 2)
    assert desk.runs.pass_step(desk.run, 1)
    assert not desk.runs.pass_step(desk.run, 1)
    assert [held for *_, held in waves(desk)] == [False, False, True]
    send(desk, 2)
    assert desk.runs.end_step(desk.run, 2)
    assert desk.runs.pass_step(desk.run, 2)
    assert steps(desk) == []  # all passed: nothing is asked any more
    send(desk, 3)
    assert desk.runs.complete(desk.run)
    assert desk.totals() == {"planned": 3_000, "sent": 3_000}


def test_what_became_of_a_step_counts_wherever_its_ranges_moved(desk: Desk) -> None:
    begun(desk, 3_000, 1_200)
    for index, kind in enumerate((OutcomeKind.FAILED, OutcomeKind.DEFERRED)):
        send_all(desk.own(index, wave=1), kind, **due(kind))
    assert desk.runs.repair_wave(desk.run, 1) == 3
    assert not desk.runs.end_step(desk.run, 1)
    send_all(desk.own(0, wave=3))
    assert desk.runs.end_step(desk.run, 1)
    (step,) = steps(desk)
    assert (step.failed, step.deferred, step.sent, step.open) == (500, 500, 200, 0)
    # The deferred are sent again meanwhile; the step's figures are those of the first attempt.
    assert desk.runs.retry_wave(desk.run, 500) == 4
    send_all(desk.own(0, wave=4))
    (step,) = steps(desk)
    assert (step.failed, step.deferred, step.sent) == (500, 500, 200)
    assert desk.totals() == {"planned": 3_000, "sent": 700, "failed": 500, "remaining": 1_800}


def test_cancelled_in_a_canary_all_others_count_as_cancelled(desk: Desk) -> None:
    begun(desk, 3_000, 100, 600)
    send(desk, 1)
    assert desk.runs.close(desk.run, RunState.CANCELLED)
    assert desk.totals() == {"planned": 3_000, "sent": 100, "cancelled": 2_900}
    desk.runs.end_step(desk.run, 1)
    assert not desk.runs.pass_step(desk.run, 1)  # it is over


@pytest.mark.parametrize("wrong", ["a gap between steps", "a page not full"])
def test_a_plan_whose_steps_are_broken_is_not_published(desk: Desk, wrong: str) -> None:
    plan = desk.planner.start(desk.run, desk.hash)
    assert plan
    names = [f"k{i}" for i in range(1_000)]
    if wrong == "a gap between steps":
        pages = [page(0, names[:10]), page(0, names[10:20], step=2)]
    else:
        pages = [page(0, names[:10]), page(0, names[10:19], step=1), page(1, names[19:20], step=1)]
    desk.planner.write(plan, pages)
    with pytest.raises(PlanMismatch):
        desk.planner.publish(plan, 20, 0, "text")


def test_people_find_a_recipient_of_a_step_in_the_plan(desk: Desk) -> None:
    desk.plan(1_000, 2, [10])
    row = desk.runs.get(desk.run)
    assert row
    assert row.plan_id
    fates = {key: fate_of(desk.engine(), desk.run, row.plan_id, key) for key in ("k5", "k995", "s1", "nobody")}
    assert fates == {"k5": "", "k995": "", "s1": "AddressInvalid", "nobody": None}
    assert first_keys(desk.engine(), desk.run, row.plan_id)[:2] == ["k0", "k1"]


def test_a_plan_of_steps_alone_has_first_keys_as_well(desk: Desk) -> None:
    desk.plan(10, 0, [10])
    row = desk.runs.get(desk.run)
    assert row
    assert row.plan_id
    assert len(first_keys(desk.engine(), desk.run, row.plan_id)) == 10


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.integers(1, 1_500),
    cut=st.lists(st.integers(1, 700), max_size=4),
    kinds=st.lists(st.sampled_from([OutcomeKind.SENT, OutcomeKind.FAILED, OutcomeKind.DEFERRED]), min_size=5),
)
def test_each_recipient_is_in_one_wave_and_the_sum_holds_at_every_step(
    postgres: PostgresServer, keys: int, cut: list[int], kinds: list[OutcomeKind]
) -> None:
    sizes = [size for i, size in enumerate(cut) if sum(cut[: i + 1]) <= keys]
    sizes = sizes if sum(sizes) <= keys else []
    with Desk(postgres.database(), start=False) as desk:
        begun(desk, keys, *sizes)
        for number, _, planned, held in waves(desk):
            assert not held or number > 1
            kind = kinds[number - 1]
            before = desk.books().totals
            send(desk, number, kind)
            after = desk.books().totals  # checks that each key has exactly one verdict, and the sum
            assert after[kind.value] == before[kind.value] + planned
            desk.runs.end_step(desk.run, number)
            desk.runs.pass_step(desk.run, number)
        assert all(not held for *_, held in waves(desk))
        assert desk.books().totals["remaining"] == 0


AT = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


def test_a_pause_ends_when_somebody_says_so_with_a_later_time(desk: Desk) -> None:
    assert not desk.runs.pause(desk.run, PauseReason.BRAKE_APPLIED, "why", AT)  # not open
    begun(desk, 10)
    assert desk.runs.pause(desk.run, PauseReason.BRAKE_APPLIED, "30 % failed", AT)
    assert not desk.runs.pause(desk.run, PauseReason.SENDER_FAULT, "535", AT + timedelta(seconds=1))
    row = desk.runs.get(desk.run)
    assert row
    assert (row.pause_reason, row.pause_message, row.paused_at) == ("BrakeApplied", "30 % failed", AT)
    assert not desk.runs.resume(desk.run, AT - timedelta(microseconds=1))
    assert desk.runs.resume(desk.run, AT)
    assert not desk.runs.resume(desk.run, AT)
    row = desk.runs.get(desk.run)
    assert row
    assert (row.pause_reason, row.pause_message, row.paused_at) == (None, None, AT)
    assert row.resumed_at
    # The same time does not end a later pause.
    assert desk.runs.pause(desk.run, PauseReason.SENDER_FAULT, "535", AT + timedelta(seconds=1))
    assert not desk.runs.resume(desk.run, AT)
