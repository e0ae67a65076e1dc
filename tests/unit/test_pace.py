"""How fast a sender takes itself to be."""

from __future__ import annotations

import pytest

from mailfleet_sender.delivery.pace import FIRST_PER_SECOND, GROWTH, Pace


def window(pace: Pace, begun: int, *, at: float, busy: bool) -> None:
    for _ in range(begun):
        pace.began()
    if not busy:
        pace.nothing_waits()
    pace.look(at)


def test_while_mails_wait_for_room_it_is_what_was_begun() -> None:
    pace = Pace(10.0)
    window(pace, 50, at=10.2, busy=True)
    assert pace.per_second == pytest.approx(250)


def test_without_enough_to_do_it_may_be_more_than_was_begun() -> None:
    pace = Pace(10.0)
    window(pace, 1, at=10.2, busy=False)
    assert pace.per_second == pytest.approx(FIRST_PER_SECOND * GROWTH)
    window(pace, 1000, at=10.4, busy=False)
    assert pace.per_second == pytest.approx(5000 * GROWTH)


def test_it_changes_only_after_a_window_and_is_never_nothing() -> None:
    pace = Pace(10.0)
    pace.look(10.05)
    assert pace.per_second == FIRST_PER_SECOND
    window(pace, 0, at=11.0, busy=True)
    assert pace.per_second == 1
