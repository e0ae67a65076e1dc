"""What the ledger forgets, and when; totals it never forgets (docs/decisions/0017)."""

# ruff: noqa: S608 - what is put into these statements is names and constants of this package, values are bound

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import text

from mailfleet_sender.errors import LedgerUnavailable

from .connection import available, transaction
from .loads import drop_loads, sweep_orphans
from .partitions import PARTITIONS_LOCK, month
from .runs import Runs
from .values import Timing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Engine

USAGE_DAYS = 8
"""A week and a day: no quota looks further back."""
PAGES_DAYS = 1
"""So long after its end a run's late outcomes have come, and its pages are needed by nobody."""
BATCH = 5_000
"""Rows of one DELETE: a transaction stays far below the limits that all have."""
DROP_TRIES, DROP_PAUSE_SECONDS = 20, 0.25
DROP_LOCK_SECONDS = 0.2
"""A DROP that waits for its lock holds up every record behind it, so it waits no longer than this, and tries again."""

_NAME = re.compile(r"delivery_(\d{4})_(\d{2})")
_PARTITIONS = text("""
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'delivery'::regclass ORDER BY c.relname
""")
_NEEDED = (
    "SELECT EXISTS (SELECT 1 FROM run u WHERE u.ended_at IS NULL AND EXISTS (SELECT 1 FROM {} d WHERE d.run = u.id))"
)
_ENDED = text("""
SELECT u.id FROM run u WHERE u.ended_at < clock_timestamp() - :days * interval '1 day' AND (
    EXISTS (SELECT 1 FROM page p WHERE p.run = u.id) OR EXISTS (SELECT 1 FROM report p WHERE p.run = u.id)
    OR EXISTS (SELECT 1 FROM csv_load c WHERE c.run = u.id)
    OR EXISTS (SELECT 1 FROM late_outcome l JOIN range r ON r.id = l.range WHERE r.run = u.id))
ORDER BY u.id
""")
_LOCK_ENDED = text("""
SELECT 1 FROM run WHERE id = :run AND ended_at < clock_timestamp() - :days * interval '1 day' FOR UPDATE
""")


def _delete(table: str, where: str) -> str:
    return f"DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {where} LIMIT {BATCH}))"


_PAGES = _delete("page", "run = :run")
_REPORTS = _delete("report", "run = :run")
_DEFAULT = _delete("delivery_default", "at < :before AND run NOT IN (SELECT id FROM run WHERE ended_at IS NULL)")
_DOUBTS = _delete("doubt", "range IN (SELECT r.id FROM range r JOIN run u ON u.id = r.run WHERE u.ended_at < :before)")
_USAGE = _delete("usage", "bucket < clock_timestamp() - :days * interval '1 day'")
_SUPPRESSIONS = _delete("suppression", "expires_at < clock_timestamp()")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Retained:
    """What went: names of partitions, and rows."""

    partitions: tuple[str, ...] = ()
    deliveries: int = 0
    pages: int = 0
    doubts: int = 0
    usage: int = 0
    suppressions: int = 0


def retain(engine: Engine, *, months: int, today: date | None = None) -> Retained:
    """Forget what is old; safe to repeat, by two at once, and beside senders.

    Deliveries and names of the uncertain go with their month, `months` whole months after it, unless a run that
    has not ended is among them. Pages, reports and rows of files of runs that ended more than a day ago go, their
    late outcomes are absorbed. Usage older than 8 days and expired suppressions go. A run's row and counters stay for
    ever.

    Args:
        engine: of the ledger.
        months: at least 1.
        today: by UTC.

    Raises:
        LedgerUnavailable: some of it may be done; do it again.
        ValueError: months is below 1.
    """
    if months < 1:
        raise ValueError(f"deliveries are kept for at least a month, not for {months}")
    before = month(today or datetime.now(UTC).date(), -months)
    start = {"before": datetime(before.year, before.month, 1, tzinfo=UTC)}
    return Retained(
        partitions=tuple(_drop_months(engine, before)),
        deliveries=_repeat(engine, _DEFAULT, start),
        pages=_forget_ended(engine),
        doubts=_repeat(engine, _DOUBTS, start),
        usage=_repeat(engine, _USAGE, {"days": USAGE_DAYS}),
        suppressions=_repeat(engine, _SUPPRESSIONS, {}),
    )


def _partitions(engine: Engine, before: date) -> list[str]:
    """Partitions of months that ended before that day."""
    with available(), engine.connect() as connection:
        names: Sequence[str] = connection.scalars(_PARTITIONS).all()
    found = [(name, _NAME.fullmatch(name)) for name in names]
    return [name for name, m in found if m and month(date(int(m[1]), int(m[2]), 1), 1) <= before]


def _drop_months(engine: Engine, before: date) -> list[str]:
    """Drop them, until one is busy: what holds it (a dump, a long reader) mostly holds the parent's lock."""
    dropped = []
    for name in _partitions(engine, before):
        try:
            if _drop(engine, name):
                dropped.append(name)
        except LedgerUnavailable as error:
            log.warning("a month of deliveries is busy: left for the next time", partition=name, error=str(error))
            break
    return dropped


def _drop(engine: Engine, name: str) -> bool:
    """Drop one partition, unless a run needs it.

    Raises:
        LedgerUnavailable: it stayed busy.
    """
    limits = replace(Timing(), lock_seconds=DROP_LOCK_SECONDS)
    for left in reversed(range(DROP_TRIES)):
        try:
            with transaction(engine, limits) as connection:
                connection.execute(text(f"SELECT {PARTITIONS_LOCK}"))
                gone = connection.scalar(text("SELECT to_regclass(:name)"), {"name": name}) is None
                if gone or connection.scalar(text(_NEEDED.format(name))):
                    return False
                connection.execute(text(f"DROP TABLE {name}"))
                return True
        except LedgerUnavailable:
            if not left:
                raise
            time.sleep(DROP_PAUSE_SECONDS)
    raise AssertionError("unreachable: the last try returns or raises")


def _repeat(engine: Engine, statement: str, values: Mapping[str, object]) -> int:
    """Delete in batches, each a transaction of its own."""
    total = 0
    while True:
        with transaction(engine) as connection:
            count = connection.execute(text(statement), values).rowcount
        total += count
        if count < BATCH:
            return total


def _forget_ended(engine: Engine) -> int:
    """Pages, reports, late outcomes and rows of files of runs that ended a day ago; each batch of pages under the run's
    lock, for a retry may open it again. Also rows that a planner left which nobody followed."""
    runs = Runs(engine)
    sweep_orphans(engine)
    with available(), engine.connect() as connection:
        ended = connection.scalars(_ENDED, {"days": PAGES_DAYS}).all()
    total = 0
    for run in ended:
        runs.absorb_late(run)
        count = BATCH
        while count == BATCH:
            with transaction(engine) as connection:
                if connection.scalar(_LOCK_ENDED, {"run": run, "days": PAGES_DAYS}) is None:
                    break
                count = connection.execute(text(_PAGES), {"run": run}).rowcount
                connection.execute(text(_REPORTS), {"run": run})
            total += count
        drop_loads(engine, run)
    return total
