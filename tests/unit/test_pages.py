"""Positions to keys: the right ones, whatever is asked in which order, and read a few pages at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_sender.errors import LedgerRewound
from mailfleet_sender.ledger import PAGE_SIZE, Positions
from mailfleet_sender.ledger.pages import CACHED_PAGES, FRESH_SECONDS, Pages

if TYPE_CHECKING:
    from collections.abc import Sequence


class Page(NamedTuple):
    """A row of `page`."""

    number: int
    keys: list[str | None]
    attempts: None = None
    since: None = None


class Book:
    """The pages of a plan; remembers what was read."""

    def __init__(self, first: int, planned: int) -> None:
        self.first, self.planned = first, planned
        self.end = first + -(-planned // PAGE_SIZE)
        self.asked: list[list[int]] = []
        self.erased: set[int] = set()
        self.now = 0.0

    def key(self, position: int) -> str | None:
        return None if position in self.erased else f"k{self.first}:{position}"

    def read(self, numbers: Sequence[int]) -> Sequence[Any]:
        self.asked.append(list(numbers))
        assert all(self.first <= n < self.end for n in numbers), "a page of another range"
        starts = [(n, (n - self.first) * PAGE_SIZE) for n in numbers]
        return [Page(n, [self.key(p) for p in range(s, min(s + PAGE_SIZE, self.planned))]) for n, s in starts]

    def pages(self) -> Pages:
        return Pages(1, 1, 0, self.first, self.planned, clock=lambda: self.now)


ranges = st.builds(Book, st.integers(0, 50), st.integers(1, 12 * PAGE_SIZE))


@given(ranges, st.data())
def test_keys_are_those_at_the_positions_in_whatever_order_they_are_asked(book: Book, data: st.DataObject) -> None:
    pages = book.pages()
    some = st.frozensets(st.integers(0, book.planned - 1), min_size=1, max_size=20)
    for asked in data.draw(st.lists(some, max_size=6)):
        found = pages.keys(Positions.of(asked), book.read)
        assert [(k.position, k.key) for k in found] == [(p, book.key(p)) for p in sorted(asked)]


@given(ranges, st.integers(1, PAGE_SIZE))
def test_a_range_that_is_read_in_order_reads_each_page_once_and_several_at_a_time(book: Book, step: int) -> None:
    pages, start = book.pages(), 0
    while start < book.planned:
        end = min(book.planned, start + step)
        assert [k.key for k in pages.keys(Positions.span(start, end), book.read)] == [*map(book.key, range(start, end))]
        start = end
    read = [number for numbers in book.asked for number in numbers]
    assert read == list(range(book.first, book.end))
    assert len(book.asked) <= -(-len(read) // (CACHED_PAGES - 1))


@given(ranges, st.data())
def test_who_was_erased_seconds_ago_has_no_key(book: Book, data: st.DataObject) -> None:
    pages, positions = book.pages(), st.integers(0, book.planned - 1)
    for asked in data.draw(st.lists(positions, min_size=1, max_size=6)):
        one = Positions.span(asked, asked + 1)
        pages.keys(one, book.read)
        book.erased |= data.draw(st.frozensets(positions, max_size=6)) | {asked}
        book.now += FRESH_SECONDS + 0.1
        assert [k.key for k in pages.keys(one, book.read)] == [None]


def test_pages_that_are_gone_are_a_ledger_that_went_back() -> None:
    book = Book(3, 2 * PAGE_SIZE)
    with pytest.raises(LedgerRewound):
        book.pages().keys(Positions.span(0, 5), lambda numbers: book.read(numbers)[1:])
