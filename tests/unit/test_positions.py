"""Positions are sets: held against Python's own."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_sender.ledger import EMPTY, Positions

sets = st.frozensets(st.integers(0, 60))


@given(sets)
def test_a_set_of_positions_holds_exactly_what_it_was_made_of(a: frozenset[int]) -> None:
    p = Positions.of(a)
    assert (list(p), len(p), bool(p), p.upper) == (sorted(a), len(a), bool(a), max(a, default=-1) + 1)
    assert all((i in p) == (i in a) for i in range(62))


@given(sets, sets)
def test_union_intersection_and_difference_are_those_of_sets(a: frozenset[int], b: frozenset[int]) -> None:
    p, q = Positions.of(a), Positions.of(b)
    assert p | q == Positions.of(a | b)
    assert p & q == Positions.of(a & b)
    assert p - q == Positions.of(a - b)


@given(sets, sets)
def test_equal_sets_are_equal_however_they_came_about(a: frozenset[int], b: frozenset[int]) -> None:
    p, q = Positions.of(a), Positions.of(b)
    assert (p - q) | (p & q) == p
    assert hash((p - q) | (p & q)) == hash(p)
    assert (p == q) == (a == b)


@given(sets)
def test_spans_are_ascending_and_neither_touch_nor_are_empty(a: frozenset[int]) -> None:
    spans = Positions.of(a).spans
    assert all(start < stop for start, stop in spans)
    assert all(left[1] < right[0] for left, right in pairwise(spans))


@given(sets)
def test_what_postgres_writes_is_read_back(a: frozenset[int]) -> None:
    p = Positions.of(a)
    assert Positions.parse(str(p)) == p


@given(sets, st.integers(-1, 70))
def test_take_gives_the_smallest(a: frozenset[int], count: int) -> None:
    assert Positions.of(a).take(count) == Positions.of(sorted(a)[: max(count, 0)])


@given(st.integers(0, 9), st.integers(0, 9))
def test_a_span_is_a_range(start: int, stop: int) -> None:
    assert list(Positions.span(start, stop)) == list(range(start, stop))


def test_the_text_is_that_of_an_int4multirange() -> None:
    assert str(Positions.of([0, 1, 2, 7, 8, 10])) == "{[0,3),[7,9),[10,11)}"
    assert (str(EMPTY), Positions.parse("{}")) == ("{}", EMPTY)


@pytest.mark.parametrize("text", ["", "[0,5)", "{[0,5]}", "{[0,5),}", "{[5)}", "{(0,5)}", "{[-1,5)}", "{[0,5) [6,7)}"])
def test_what_is_no_multirange_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no multirange"):
        Positions.parse(text)
