"""The frozen keys of a range, read a page at a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from mailfleet_sender.errors import LedgerRewound

from .connection import available
from .values import MAIN_PAGES, PAGE_SIZE, PageKey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Engine, Row

    from .positions import Positions

CACHED_PAGES = 4
FRESH_SECONDS = 5.0
"""Keys that were read longer ago are read again: somebody may have been erased meanwhile."""

_PAGES = text("""
SELECT number, keys, attempts, since FROM page
WHERE run = :run AND plan = :plan AND wave = :wave AND number = ANY(CAST(:numbers AS int[]))
""")
# Waves up to MAIN_PAGES are the plan's own: the audience, its canary steps, what is skipped.
_FIRST = text("""
SELECT keys FROM page WHERE run = :run AND plan = :plan AND wave <= :wave AND reason IS NULL
ORDER BY wave DESC, number LIMIT 1
""")
_FATE = text("""
SELECT reason FROM page WHERE run = :run AND plan = :plan AND wave <= :wave AND :key = ANY(keys) LIMIT 1
""")


class Pages:
    """Positions to keys, with a small cache, which is filled ahead: most of a range is read in its order."""

    def __init__(
        self,
        run: int,
        plan: int,
        wave: int,
        first_page: int,
        planned: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place, self._first = {"run": run, "plan": plan, "wave": wave}, first_page
        self._end = first_page + -(-planned // PAGE_SIZE)
        self._cache: dict[int, Row[Any]] = {}
        self._clock, self._fresh_until = clock, 0.0

    def keys(self, positions: Positions, read: Callable[[Sequence[int]], Sequence[Row[Any]]]) -> list[PageKey]:
        """The keys at `positions`, ascending; `read` is asked for the pages that are not in the cache.

        Raises:
            LedgerRewound: pages of a range that is open are gone.
        """
        wanted = {self._first + p // PAGE_SIZE for p in positions}
        if self._clock() > self._fresh_until:
            self._cache.clear()
        if missing := sorted(wanted - self._cache.keys()):
            last = missing.pop()
            ahead = range(last, min(last + CACHED_PAGES - 1, self._end))  # one place is left for the page before
            if not self._cache:
                self._fresh_until = self._clock() + FRESH_SECONDS
            self._cache.update((row.number, row) for row in read([*missing, *ahead]))
        try:
            return [self._key(p) for p in positions]
        except (KeyError, IndexError):
            raise LedgerRewound(f"pages {sorted(wanted)} of {self._place} are not all there") from None
        finally:
            for number in list(self._cache)[:-CACHED_PAGES]:
                del self._cache[number]

    def read(self, connection: Connection, numbers: Sequence[int]) -> Sequence[Row[Any]]:
        """Read pages, in one statement."""
        return connection.execute(_PAGES, {**self._place, "numbers": list(numbers)}).all()

    def _key(self, position: int) -> PageKey:
        page, i = self._cache[self._first + position // PAGE_SIZE], position % PAGE_SIZE
        attempt = page.attempts[i] if page.attempts else 0
        return PageKey(position, page.keys[i], attempt, page.since[i] if page.since else None)


def first_keys(engine: Engine, run: int, plan: int) -> list[str]:
    """The keys of the audience's first page, without those that were erased; none: the pages are gone, or empty.

    Raises:
        LedgerUnavailable: the ledger does not answer.
    """
    with available(), engine.connect() as connection:
        keys = connection.scalar(_FIRST, {"run": run, "plan": plan, "wave": MAIN_PAGES})
    return [key for key in keys or () if key is not None]


def fate_of(engine: Engine, run: int, plan: int, key: str) -> str | None:
    """What the plan says of one key: "" it is to be sent, a reason: it is skipped, None: it is not in the plan.

    Reads all pages of the plan where the key is a late one or none: for people, not for senders.

    Raises:
        LedgerUnavailable: the ledger does not answer.
    """
    place = {"run": run, "plan": plan, "key": key, "wave": MAIN_PAGES}
    with available(), engine.connect() as connection:
        found = connection.execute(_FATE, place).one_or_none()
    return None if found is None else found.reason or ""
