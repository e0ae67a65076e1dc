"""The control law over hours of a fleet's life: it finds its size, and never goes to and fro."""

from __future__ import annotations

import scaling_page
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailfleet_operator.scaling import Bounds
from simulated_fleet import Scene, simulate, steps, turns

rates = st.floats(1, 10_000)
speeds = st.floats(0.5, 1_000)
MINUTES = 60


@settings(max_examples=60)
@given(
    limits=st.lists(rates, min_size=1, max_size=4),
    senders=st.lists(speeds, min_size=1, max_size=3),
    given_=st.lists(st.sampled_from([1.0, 0.5, 0.8, 0.2]), min_size=1, max_size=4),
    others=st.lists(st.floats(0, 5_000), min_size=1, max_size=3),
    every=st.integers(30, 900),
    low=st.integers(1, 3),
    more=st.integers(0, 40),
    noise=st.floats(0, 0.3),
    seed=st.integers(0, 1000),
)
def test_no_change_of_direction_within_a_minute(
    limits: list[float],
    senders: list[float],
    given_: list[float],
    others: list[float],
    every: int,
    low: int,
    more: int,
    noise: float,
    seed: int,
) -> None:
    scene = Scene(
        steps(*limits, every=every),
        steps(*senders, every=1.3 * every),
        steps(*given_, every=0.7 * every),
        steps(*others, every=every),
        Bounds(low, low + more),
        noise,
        seed,
    )
    found = simulate(scene, 45 * MINUTES)
    assert [gap for _, gap in turns(found) if gap < 60] == []


@settings(max_examples=40)
@example(limit=1082.0, before=990.0, sender=77.0, most=14)  # the thirteenth of thirteen gains less than a tenth
@given(limit=rates, before=rates, sender=speeds, most=st.integers(1, 60))
def test_whatever_it_was_it_comes_to_use_the_limit(limit: float, before: float, sender: float, most: int) -> None:
    """After a step the fleet sends at the limit, or at what all its senders can do."""
    scene = Scene(steps(before, limit, every=30 * MINUTES), lambda _: sender, bounds=Bounds(1, most))
    last = simulate(scene, 60 * MINUTES)[-1]
    assert last.rate >= 0.95 * min(limit, most * sender) - 1e-6


def test_raised_from_200_to_2000_it_grows_and_lowered_it_shrinks() -> None:
    scene = Scene(steps(200, 2000, 200, every=15 * MINUTES), lambda _: 300.0)
    found = {m.seconds // MINUTES: m for m in simulate(scene, 45 * MINUTES)}
    assert found[14].asked == 1
    assert found[20].asked >= 7
    assert found[20].rate >= 0.95 * 2000
    assert found[44].asked < found[29].asked
    assert found[44].rate >= 0.95 * 200


def test_lowered_soon_after_it_was_raised_it_shrinks_as_well() -> None:
    """What was too small for 2,000/s is no reason to keep a fleet for 200/s."""
    scene = Scene(steps(200, 2000, *[200] * 3, every=5 * MINUTES), lambda _: 300.0)
    found = {m.seconds // MINUTES: m for m in simulate(scene, 25 * MINUTES)}
    assert [found[minute].asked for minute in (4, 9, 24)] == [1, 7, 1]
    assert found[24].rate >= 0.95 * 200


@settings(max_examples=40)
@given(high=rates, sender=speeds, raised=st.integers(60, 900), share=st.floats(0.02, 0.5))
def test_a_lowered_fleet_comes_down_whenever_it_had_grown(
    high: float, sender: float, raised: int, share: float
) -> None:
    """Ten minutes after the limit was lowered the fleet is smaller than it was, if fewer suffice by far."""
    low = high * share
    scene = Scene(steps(low, high, *[low] * 99, every=raised), lambda _: sender, bounds=Bounds(1, 20))
    found = simulate(scene, 2 * raised + 10 * MINUTES)
    before = next(m for m in reversed(found) if m.limit == high)
    if before.asked > 2 * max(1, low / sender):
        assert found[-1].asked < before.asked


def test_the_page_is_as_the_law_makes_it() -> None:
    assert scaling_page.PAGE.read_text() == scaling_page.page(), "run `make scaling-page`"
