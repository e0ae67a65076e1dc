"""Sets of positions within a range, as intervals: the algebra of int4multirange, without a database."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SPAN = re.compile(r"\[(\d+),(\d+)\)")
_TEXT = re.compile(r"\{(?:\[\d+,\d+\)(?:,\[\d+,\d+\))*)?\}")


@dataclass(frozen=True, slots=True)
class Positions:
    """An immutable set of non-negative integers.

    Attributes:
        spans: half-open intervals (start, stop), ascending, not empty, neither overlapping nor touching:
            equal sets have equal spans.
    """

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, positions: Iterable[int]) -> Positions:
        """The set of these positions, in any order."""
        return cls(_merged((p, p + 1) for p in sorted(positions)))

    @classmethod
    def span(cls, start: int, stop: int) -> Positions:
        """The positions start <= p < stop."""
        return cls(((start, stop),)) if start < stop else cls()

    @classmethod
    def parse(cls, text: str) -> Positions:
        """Read what Postgres writes for an int4multirange, such as ``{[0,5),[7,9)}``.

        Raises:
            ValueError: the text is no multirange in canonical form.
        """
        if not _TEXT.fullmatch(text):
            raise ValueError(f"{text!r} is no multirange")
        return cls(_merged(sorted((int(a), int(b)) for a, b in _SPAN.findall(text))))

    def __str__(self) -> str:
        return "{" + ",".join(f"[{a},{b})" for a, b in self.spans) + "}"

    def __or__(self, other: Positions) -> Positions:
        if not other.spans:
            return self
        return Positions(_merged(sorted(chain(self.spans, other.spans))))

    def __and__(self, other: Positions) -> Positions:
        found: list[tuple[int, int]] = []
        mine, others = iter(self.spans), iter(other.spans)
        a, b = next(mine, None), next(others, None)
        while a and b:
            low, high = max(a[0], b[0]), min(a[1], b[1])
            if low < high:
                found.append((low, high))
            if a[1] <= b[1]:
                a = next(mine, None)
            else:
                b = next(others, None)
        return Positions(tuple(found))

    def __sub__(self, other: Positions) -> Positions:
        if not other.spans or not self.spans:
            return self
        gaps: list[tuple[int, int]] = []
        at = 0
        for start, stop in other.spans:
            gaps.append((at, start))
            at = stop
        gaps.append((at, max(at, self.spans[-1][1])))
        return self & Positions(tuple(g for g in gaps if g[0] < g[1]))

    def __contains__(self, position: int) -> bool:
        return any(a <= position < b for a, b in self.spans)

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(range(a, b) for a, b in self.spans)

    def __len__(self) -> int:
        return sum(b - a for a, b in self.spans)

    def __bool__(self) -> bool:
        return bool(self.spans)

    def take(self, count: int) -> Positions:
        """The `count` smallest positions, or all if there are fewer."""
        taken: list[tuple[int, int]] = []
        for start, stop in self.spans:
            if count <= 0:
                break
            taken.append((start, min(stop, start + count)))
            count -= stop - start
        return Positions(tuple(taken))

    @property
    def upper(self) -> int:
        """One more than the greatest position; 0 of the empty set."""
        return self.spans[-1][1] if self.spans else 0


def _merged(spans: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Join spans, ascending by their start, that overlap or touch."""
    joined: list[tuple[int, int]] = []
    for start, stop in spans:
        if start >= stop:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return tuple(joined)


EMPTY = Positions()
"""The set of no positions."""
