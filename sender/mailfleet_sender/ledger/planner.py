"""The planner's side: a plan is written under a fresh number and comes into being by one small statement."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, select, text, update

from mailfleet_sender.contract.accounts import RunState
from mailfleet_sender.contract.materials import Materials
from mailfleet_sender.errors import PlanMismatch

from .change import COPY_ESCAPES
from .connection import transaction
from .loads import sweep_loads
from .tables import page, run, run_message
from .values import PAGE_SIZE, SKIPPED_WAVE, Plan, pages_of_step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from concurrent.futures import Future

    from sqlalchemy import Connection, Engine

    from .values import PlannedPage

PAGES_A_TRANSACTION = 100
"""50,000 keys, a few hundred milliseconds. A plan in one transaction would stop vacuum for every other campaign,
and die of the idle limit while the recipients' database sorts."""
SECONDS_A_TRANSACTION = 2.0
"""Pages that come slowly are written as they come, so that the transaction never waits for their source."""
_NULL = "\\N"


class Planner:
    """Writes plans. Safe against older planners, second planners, edits and the start: one of them wins, wholly."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def start(self, run_id: int, definition_hash: str) -> Plan | None:
        """PLAN START: a fresh number.

        Returns:
            None: nothing to do. An edit or the start came first, or this definition is planned already.

        Raises:
            LedgerUnavailable: try again.
        """
        with transaction(self._engine) as connection:
            number = connection.scalar(
                update(run)
                .where(run.c.id == run_id, run.c.spec_hash == definition_hash, run.c.state == RunState.PLANNING)
                .values(plan_wanted=run.c.plan_wanted + 1)
                .returning(run.c.plan_wanted)
            )
        return None if number is None else Plan(run_id, number, definition_hash)

    def write(self, plan: Plan, pages: Iterable[PlannedPage]) -> int:
        """Write pages in short transactions, none of which waits for `pages`: one is written while the next are made.

        Returns:
            how many were written.

        Raises:
            LedgerUnavailable: this plan is lost; begin again with a fresh number.
        """
        written = 0
        with ThreadPoolExecutor(1, thread_name_prefix="plan") as writer:
            under_way: Future[int] | None = None
            for batch in _batches(pages):
                written += under_way.result() if under_way else 0
                under_way = writer.submit(self._write, plan, batch)
            return written + (under_way.result() if under_way else 0)

    def _write(self, plan: Plan, batch: list[PlannedPage]) -> int:
        with transaction(self._engine) as connection:
            _copy(connection, plan, batch)
        return len(batch)

    def publish(
        self,
        plan: Plan,
        planned: int,
        skipped: int,
        key_type: str,
        materials: Materials | None = None,
        *,
        audience: Mapping[str, Any] | None = None,
    ) -> bool:
        """PUBLISH: make the plan's pages the run's audience, and its materials part of the run's snapshot.

        Args:
            plan: from `start`.
            planned: all keys, skipped ones included.
            skipped: keys in pages that bear a reason.
            key_type: the SQL type that keys are cast to when recipients are read.
            materials: what the message takes from ConfigMaps; None: nothing.
            audience: what people are told of it beside counts; no address, no key of a table.

        Returns:
            False: another planner, an edit or the start came first; nothing is published.

        Raises:
            PlanMismatch: the pages are not what they are said to be.
            LedgerUnavailable: try again: publishing twice does no harm.
        """
        with transaction(self._engine) as connection:
            try:
                _check_pages(connection, plan, planned, skipped)
            except PlanMismatch:
                # Asked after the pages were seen: who sweeps them has made a newer plan wanted before.
                if connection.scalar(select(run.c.plan_wanted).where(run.c.id == plan.run)) == plan.number:
                    raise
                return False
            done = connection.execute(
                update(run)
                .where(
                    run.c.id == plan.run,
                    run.c.plan_wanted == plan.number,
                    run.c.spec_hash == plan.definition_hash,
                    run.c.state == RunState.PLANNING,
                )
                .values(
                    plan_id=plan.number,
                    planned=planned,
                    skipped=skipped,
                    key_type=key_type,
                    audience=dict(audience or {}),
                    state=RunState.PLANNED.value,
                )
            )
            if done.rowcount:
                frozen = (materials or Materials()).document()
                connection.execute(update(run_message).where(run_message.c.run == plan.run).values(attachments=frozen))
                return True
            published = select(run.c.plan_id == plan.number).where(run.c.id == plan.run)
            return bool(connection.scalar(published))  # a COMMIT whose answer was lost

    def sweep(self, run_id: int) -> int:
        """Delete the pages, and rows loaded from a file, of plans that were not published and no longer can be.

        Returns:
            how many pages went.

        Raises:
            LedgerUnavailable: try again at any time.
        """
        sweep_loads(self._engine, run_id)
        with transaction(self._engine) as connection:
            return connection.execute(
                delete(page).where(
                    page.c.run == run_id,
                    run.c.id == page.c.run,
                    page.c.plan < run.c.plan_wanted,
                    page.c.plan.is_distinct_from(run.c.plan_id),
                )
            ).rowcount


def _batches(pages: Iterable[PlannedPage]) -> Iterator[list[PlannedPage]]:
    batch: list[PlannedPage] = []
    began = time.monotonic()
    for one in pages:
        batch.append(one)
        if len(batch) >= PAGES_A_TRANSACTION or time.monotonic() - began > SECONDS_A_TRANSACTION:
            yield batch
            batch, began = [], time.monotonic()
    if batch:
        yield batch


def _copy(connection: Connection, plan: Plan, batch: list[PlannedPage]) -> None:
    """COPY: the keys pass as one text, neither quoted nor parsed as literals of an INSERT."""
    lines = (
        f"{plan.run}\t{plan.number}\t{pages_of_step(p.step) if p.reason is None else SKIPPED_WAVE}\t{p.number}\t"
        f"{p.keys.literal.translate(COPY_ESCAPES)}\t{p.reason or _NULL}\n"
        for p in batch
    )
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        cursor.copy_expert("COPY page (run, plan, wave, number, keys, reason) FROM STDIN", io.StringIO("".join(lines)))


def _check_pages(connection: Connection, plan: Plan, planned: int, skipped: int) -> None:
    """Positions find their page by division: so pages have no gaps and are full, and counts are counted here."""
    size = func.cardinality(page.c["keys"])
    rows = connection.execute(
        select(
            page.c.wave,
            func.count().label("pages"),
            func.min(page.c.number).label("first"),
            func.max(page.c.number).label("last"),
            func.sum(size).label("keys"),
            func.count().filter(size < PAGE_SIZE).label("short"),
            func.max(page.c.number).filter(size == PAGE_SIZE).label("last_full"),
            func.bool_or(func.array_position(page.c["keys"], text("NULL::text")).is_not(None)).label("nulls"),
        )
        .where(page.c.run == plan.run, page.c.plan == plan.number)
        .group_by(page.c.wave)
    ).all()
    counted = {row.wave: int(row.keys) for row in rows}
    to_send = [row for row in rows if row.wave != SKIPPED_WAVE]
    gaps = any(row.first != 0 or row.last != row.pages - 1 for row in to_send)
    short = any(row.short > 1 or (row.short == 1 and row.last_full == row.last) for row in to_send)
    if gaps or short or any(row.nulls for row in rows):
        raise PlanMismatch(f"plan {plan.number} of run {plan.run}: pages with a gap, a page not full, or a NULL key")
    if counted.get(SKIPPED_WAVE, 0) != skipped or sum(row.keys for row in to_send) != planned - skipped:
        raise PlanMismatch(
            f"plan {plan.number} of run {plan.run}: {counted} keys, not {planned} with {skipped} skipped"
        )
    steps = sum(row.wave < SKIPPED_WAVE for row in to_send)
    if any(pages_of_step(step) not in counted for step in range(1, steps + 1)):
        raise PlanMismatch(f"plan {plan.number} of run {plan.run}: a canary step without pages")
