"""Rows of a CSV file in the ledger: a load lies under its plan's number, and so is nobody's until that is published.

A planner that dies leaves a load that no plan will ever mean; the next one sweeps it and loads anew. So no row can be
there twice, whatever is killed or comes twice.
"""

from __future__ import annotations

import io
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, text

from mailfleet_sender.errors import PlanSuperseded

from .change import COPY_ESCAPES
from .connection import available, transaction
from .tables import csv_load
from .values import WITHIN_ARRAY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from sqlalchemy import Engine

    from .values import Plan

ROWS_A_TRANSACTION = 10_000
CHARACTERS_A_TRANSACTION = 2_000_000
SECONDS_A_TRANSACTION = 2.0
"""A file that comes slowly is written as it comes; no transaction ever waits for it."""
DELETED = 20_000
"""Rows of one DELETE."""
ORPHANED_DAYS = 1
"""A load that was not published by then never will be: its planner is dead, and its campaign gone."""

_SPECIAL = re.compile(r'["\\\t\n\r]')

# By ranges of lines: no plan of a server that never counted these rows can make a join of it.
_UPTO = text("""
SELECT max(line) FROM (
    SELECT line FROM csv_row WHERE run = :run AND plan = :plan AND line > :after ORDER BY line LIMIT :most) l
""")
_DELETE = text("DELETE FROM csv_row WHERE run = :run AND plan = :plan AND line > :after AND line <= :upto")
_UNPUBLISHED = text("""
SELECT l.plan FROM csv_load l JOIN run r ON r.id = l.run
WHERE l.run = :run AND l.plan < r.plan_wanted AND l.plan IS DISTINCT FROM r.plan_id ORDER BY l.plan
""")
_ORPHANS = text("""
SELECT l.run, l.plan FROM csv_load l JOIN run r ON r.id = l.run
WHERE l.plan IS DISTINCT FROM r.plan_id AND l.at < clock_timestamp() - :days * interval '1 day' ORDER BY 1, 2
""")
_LOADS = text("SELECT plan FROM csv_load WHERE run = :run ORDER BY plan")
_LOCK_LOAD = text("SELECT 1 FROM csv_load WHERE run = :run AND plan = :plan FOR KEY SHARE")


def begin_load(engine: Engine, plan: Plan, columns: Sequence[str], *, email: int, keyed: bool) -> None:
    """Say what is loaded under this plan's number.

    Args:
        engine: of the ledger.
        plan: from `Planner.start`.
        columns: the header.
        email: the place of the address among them, from 0.
        keyed: whether rows have keys of their own; else their lines are their keys.

    Raises:
        LedgerUnavailable: begin again with a fresh number.
    """
    values = {"columns": list(columns), "email": email + 1, "keyed": keyed}
    with transaction(engine) as connection:
        connection.execute(insert(csv_load).values(run=plan.run, plan=plan.number, **values))


def load_rows(engine: Engine, plan: Plan, rows: Iterable[tuple[int, str | None, Sequence[str]]]) -> int:
    """Write rows (line, key or None, fields) by COPY in short transactions, one while the next are read.

    Returns:
        how many.

    Raises:
        LedgerUnavailable: this plan is lost; begin again with a fresh number.
        PlanSuperseded: a newer plan came.
    """
    loaded = 0
    with ThreadPoolExecutor(1, thread_name_prefix="load") as writer:
        under_way: Future[None] | None = None
        for lines in _batches(plan, rows):
            if under_way:
                under_way.result()
            loaded += len(lines)
            under_way = writer.submit(_copy, engine, plan, lines)
        if under_way:
            under_way.result()
    return loaded


def sweep_loads(engine: Engine, run: int) -> None:
    """Delete what older plans of this run loaded that were not published; safe to repeat."""
    with available(), engine.connect() as connection:
        plans = connection.scalars(_UNPUBLISHED, {"run": run}).all()
    for plan in plans:
        drop_load(engine, run, plan)


def sweep_orphans(engine: Engine) -> int:
    """Delete loads of planners that died a day ago and that nobody followed; how many."""
    with available(), engine.connect() as connection:
        orphans = connection.execute(_ORPHANS, {"days": ORPHANED_DAYS}).all()
    for orphan in orphans:
        drop_load(engine, orphan.run, orphan.plan)
    return len(orphans)


def drop_loads(engine: Engine, run: int) -> None:
    """Delete all rows that were loaded for a run, those of its published plan too."""
    with available(), engine.connect() as connection:
        plans = connection.scalars(_LOADS, {"run": run}).all()
    for plan in plans:
        drop_load(engine, run, plan)


def drop_load(engine: Engine, run: int, plan: int) -> None:
    """Delete one load, its rows in batches and last what names it: who dies between leaves a load to be swept."""
    place = {"run": run, "plan": plan, "most": DELETED, "after": 0}
    while True:
        with transaction(engine) as connection:
            if (upto := connection.scalar(_UPTO, place)) is None:
                break
            connection.execute(_DELETE, {**place, "upto": upto})
            place["after"] = upto
    with transaction(engine) as connection:
        # Its planner may be at work yet: no batch comes after this lock, and what came before it goes below.
        here = select(csv_load.c.run).where(csv_load.c.run == run, csv_load.c.plan == plan).with_for_update()
        connection.execute(here)
        connection.execute(text("DELETE FROM csv_row WHERE run = :run AND plan = :plan"), place)
        connection.execute(text("DELETE FROM csv_load WHERE run = :run AND plan = :plan"), place)


def _batches(plan: Plan, rows: Iterable[tuple[int, str | None, Sequence[str]]]) -> Iterator[list[str]]:
    """Lines of COPY, as many as one transaction writes."""
    lines: list[str] = []
    size, began = 0, time.monotonic()
    head = f"{plan.run}\t{plan.number}\t"
    for line, key, fields in rows:
        array = '","'.join(fields)
        if _SPECIAL.search("".join(fields)):
            array = '","'.join(field.translate(WITHIN_ARRAY) for field in fields).translate(COPY_ESCAPES)
        text_key = "\\N" if key is None else key.translate(COPY_ESCAPES)
        lines.append(f'{head}{line}\t{text_key}\t{{"{array}"}}\n')
        size += len(array)
        if (
            len(lines) >= ROWS_A_TRANSACTION
            or size >= CHARACTERS_A_TRANSACTION
            or time.monotonic() - began > SECONDS_A_TRANSACTION
        ):
            yield lines
            lines, size, began = [], 0, time.monotonic()
    if lines:
        yield lines


def _copy(engine: Engine, plan: Plan, lines: Sequence[str]) -> None:
    with transaction(engine) as connection:
        if connection.scalar(_LOCK_LOAD, {"run": plan.run, "plan": plan.number}) is None:
            raise PlanSuperseded(f"what plan {plan.number} of run {plan.run} loaded was swept by a newer one")
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor:
            cursor.copy_expert(
                "COPY csv_row (run, plan, line, key, fields) FROM STDIN", io.BytesIO("".join(lines).encode())
            )
