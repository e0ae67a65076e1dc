"""Months of `delivery`, made ahead of their time."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from sqlalchemy import text

from .connection import transaction

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

MONTHS_AHEAD = 3
"""A quarter without anybody calling `make_partitions` does no harm; after that rows go to the DEFAULT partition."""
PARTITIONS_LOCK = "pg_advisory_xact_lock(hashtext('mailfleet delivery partitions'))"


def make_partitions(engine: Engine, today: date | None = None) -> list[str]:
    """Make the partitions of this month and the next three, if they are missing; safe to repeat, and at once.

    Returns:
        the names of those made now.

    Raises:
        LedgerUnavailable: try again tomorrow.
    """
    with transaction(engine) as connection:
        return add_partitions(connection, today or datetime.now(UTC).date())


def add_partitions(connection: Connection, today: date) -> list[str]:
    """The same, within a transaction of the caller.

    ATTACH locks the parent only against other changes of its shape, so senders write on meanwhile; rows that
    a late call finds in the DEFAULT partition are moved.
    """
    connection.execute(text(f"SELECT {PARTITIONS_LOCK}"))
    made = []
    for offset in range(MONTHS_AHEAD + 1):
        start, stop = month(today, offset), month(today, offset + 1)
        name = f"delivery_{start:%Y_%m}"
        if connection.scalar(text("SELECT to_regclass(:name)"), {"name": name}):
            continue
        bounds = f"at >= '{start} 00:00+00' AND at < '{stop} 00:00+00'"
        connection.execute(text(f"CREATE TABLE {name} (LIKE delivery INCLUDING ALL EXCLUDING IDENTITY)"))
        connection.execute(
            text(
                f"WITH moved AS (DELETE FROM delivery_default WHERE {bounds} RETURNING *)"  # noqa: S608 - dates of ours
                f" INSERT INTO {name} SELECT * FROM moved"
            )
        )
        connection.execute(
            text(
                f"ALTER TABLE delivery ATTACH PARTITION {name}"
                f" FOR VALUES FROM ('{start} 00:00+00') TO ('{stop} 00:00+00')"
            )
        )
        made.append(name)
    return made


def month(day: date, offset: int) -> date:
    """The first day of the month `offset` months after that of `day`."""
    months = day.year * 12 + day.month - 1 + offset
    return date(months // 12, months % 12 + 1, 1)
