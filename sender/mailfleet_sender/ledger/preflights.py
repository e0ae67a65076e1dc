"""What preflights found out: one row a relay, the newest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from mailfleet_sender.contract.preflight import Preflight, RelayFault

from . import tables
from .connection import available, transaction
from .records import kept

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Engine

CAPABILITIES, CAPABILITY_LENGTH = 40, 40
"""What is kept of a relay's words: a status has a fixed size."""


def save_preflight(
    engine: Engine,
    namespace: str,
    name: str,
    *,
    made_for: str,
    reporter: str,
    fault: RelayFault | None,
    message: str,
    capabilities: Iterable[str] = (),
) -> None:
    """Say what a preflight found; it takes the place of the one before. See `Preflight`.

    Raises:
        LedgerUnavailable: not written.
    """
    values = {
        "made_for": made_for,
        "reporter": reporter,
        "fault": str(fault) if fault else None,
        "message": kept(message),
        "capabilities": [c[:CAPABILITY_LENGTH] for c in capabilities if c.isascii() and c.isprintable()][:CAPABILITIES],
        "at": func.clock_timestamp(),
    }
    statement = insert(tables.preflight).values(namespace=namespace, name=name, **values)
    with transaction(engine) as connection:
        connection.execute(statement.on_conflict_do_update(index_elements=["namespace", "name"], set_=values))


def preflights(engine: Engine, relays: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Preflight]:
    """The newest preflights of relays, each (namespace, name); who never had one is left out.

    Raises:
        LedgerUnavailable: ask again.
    """
    p = tables.preflight.c
    query = select(tables.preflight).where(tuple_(p.namespace, p.name).in_(list(relays)))
    with available(), engine.connect() as connection:
        return {
            (row.namespace, row.name): Preflight(
                row.made_for,
                row.reporter,
                RelayFault(row.fault) if row.fault else None,
                row.message,
                tuple(row.capabilities),
                row.at,
            )
            for row in connection.execute(query)
        }
