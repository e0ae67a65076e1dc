"""A ledger with one campaign in it, and everybody's hands on it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID, uuid4

import psycopg2
import psycopg2.extensions
import psycopg2.extras

from books import Books, check_books
from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.contract.campaign import Campaign, Message, OnUncertain, Recipients, Table
from mailfleet_sender.ledger import (
    KeyArray,
    Outcome,
    OwnedRange,
    PlannedPage,
    Planner,
    Positions,
    Runs,
    Timing,
    migrate,
    open_ledger,
)
from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future

    from sqlalchemy import Engine

T = TypeVar("T")
PAGE = 500
FAST = Timing(
    lease_seconds=15, margin_seconds=5, idle_seconds=2, statement_seconds=10, lock_seconds=5, backoff_seconds=0.1
)


def campaign(on_uncertain: OnUncertain = OnUncertain.SKIP, subject: str = "news") -> Campaign:
    """The smallest campaign; another subject is another definition."""
    return Campaign(
        recipients=Recipients(table=Table(name="people")),
        message=Message(from_="shop@example.com", subject=subject, text="hello"),
        on_uncertain=on_uncertain,
    )


def page(number: int, keys: Sequence[str], reason: str | None = None, step: int = 0) -> PlannedPage:
    """A page as a planner writes it."""
    return PlannedPage(number, KeyArray.of(keys), reason, step)


def keys_of(page: PlannedPage) -> list[str]:
    """The keys of a page, read by another than its writer."""
    found: list[str] = psycopg2.extensions.STRINGARRAY(page.keys.literal, None)
    return found


class Desk:
    """One run over made-up keys k0, k1, ..., started, in ranges of one page; and everybody's hands on it.

    Attributes:
        url: the ledger's own, past any proxy.
        run: the run's id.
    """

    def __init__(
        self,
        url: str,
        *,
        keys: int = 4 * PAGE,
        skipped: int = 0,
        range_size: int = PAGE,
        on_uncertain: OnUncertain = OnUncertain.SKIP,
        start: bool = True,
        run_id: str = "1",
    ) -> None:
        migrate(url)
        self.url = url
        self._engines: list[Engine] = []
        self._side: psycopg2.extensions.connection | None = None
        self._pool = ThreadPoolExecutor(8)
        self.runs = Runs(self.engine(), FAST)
        self.planner = Planner(self.engine())
        self.campaign = campaign(on_uncertain)
        self.hash = self.campaign.definition_hash()
        self.run = self.runs.ensure("shop", "news", run_id, self.campaign).id
        if start:
            self.plan(keys, skipped)
            assert self.runs.start(self.run, self.hash, range_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)
        for engine in self._engines:
            engine.dispose()
        if self._side is not None:
            self._side.close()

    def engine(self, url: str | None = None) -> Engine:
        """A new engine, as another process has it."""
        engine = open_ledger(url or self.url, application_name="test", pool_size=2)
        self._engines.append(engine)
        return engine

    def plan(self, keys: int, skipped: int = 0, steps: Sequence[int] = ()) -> None:
        """Plan keys k0 ..., and skipped ones s0 ...; the last keys are canary steps of these sizes."""
        plan = self.planner.start(self.run, self.hash)
        assert plan
        names = [f"k{i}" for i in range(keys)]
        pages, first = [], keys
        for step, size in enumerate(steps, 1):
            first -= size
            mine = names[first : first + size]
            pages += [page(n, mine[i : i + PAGE], step=step) for n, i in enumerate(range(0, size, PAGE))]
        pages += [page(n, names[i : min(first, i + PAGE)]) for n, i in enumerate(range(0, first, PAGE))]
        if skipped:
            pages.append(page(0, [f"s{i}" for i in range(skipped)], "AddressInvalid"))
        self.planner.write(plan, pages)
        assert self.planner.publish(plan, keys + skipped, skipped, "text")

    def acquire(
        self,
        index: int = 0,
        *,
        wave: int = 1,
        url: str | None = None,
        owner: UUID | None = None,
        timing: Timing = FAST,
        account: str | None = None,
    ) -> Any:
        """What `OwnedRange.acquire` gives, on an engine of its own."""
        return OwnedRange.acquire(
            self.engine(url),
            run=self.run,
            wave=wave,
            index=index,
            owner=owner or uuid4(),
            timing=timing,
            account=account,
        )

    def own(self, index: int = 0, **how: Any) -> OwnedRange:
        """Acquire a range that is free."""
        owned = self.acquire(index, **how)
        assert isinstance(owned, OwnedRange), owned
        return owned

    def soon(self, call: Callable[..., T], *args: Any, **how: Any) -> Future[T]:
        """Run `call` in a thread of its own."""
        return self._pool.submit(call, *args, **how)

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement, past the ledger's classes; its rows."""
        if self._side is None:
            psycopg2.extras.register_uuid()  # type: ignore[no-untyped-call]
            self._side = psycopg2.connect(self.url)
            self._side.autocommit = True
        with self._side.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def value(self, statement: str, *values: Any) -> Any:
        """The one value that `statement` gives."""
        ((value,),) = self.sql(statement, *values)
        return value

    def expire(self, *ranges: int) -> None:
        """Let the leases of these ranges (all of them, if none is named) have ended."""
        self.sql(
            "UPDATE range SET lease_until = clock_timestamp() - interval '1 s' WHERE lease_until IS NOT NULL AND "
            "(id = ANY(%s) OR %s)",
            list(ranges),
            not ranges,
        )

    def waiting_for_a_lock(self) -> bool:
        """Whether some session waits for a lock."""
        return bool(self.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))

    def until_blocked(self) -> None:
        """Wait until some session waits for a lock."""
        wait_for("a session waits for a lock", self.waiting_for_a_lock, interval=0.01)

    def books(self) -> Books:
        """The run's books, checked."""
        return check_books(self.url, self.run)

    def totals(self) -> dict[str, int]:
        """The checked totals that are not 0."""
        return {k: v for k, v in self.books().totals.items() if v}


def outcomes(
    owned: OwnedRange, positions: Iterable[int], kind: OutcomeKind = OutcomeKind.SENT, **more: Any
) -> list[Outcome]:
    """One outcome for each position, with its key."""
    return [
        Outcome(k.position, k.key, kind, attempt=k.attempt + 1, since=k.since, **more)
        for k in owned.recipients(Positions.of(positions))
    ]


def claim(owned: OwnedRange, count: int) -> Positions:
    """Claim the next `count` positions."""
    to = min(owned.planned, owned.position + count)
    now = Positions.span(owned.position, to)
    owned.claim(to, now)
    return now


def send_all(owned: OwnedRange, kind: OutcomeKind = OutcomeKind.SENT, **more: Any) -> None:
    """Send what is left of a range."""
    while owned.returned:
        now = owned.returned.take(PAGE)
        owned.claim_returned(now)
        owned.record(outcomes(owned, now, kind, **more))
    while owned.position < owned.planned:
        owned.record(outcomes(owned, claim(owned, PAGE), kind, **more))
