"""Forgetting one person: the keys go, positions and counters stay, so every sum still holds."""

# ruff: noqa: E501 - each statement on its line

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from .connection import transaction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

_PEOPLE = text("""
SELECT DISTINCT run, key FROM delivery WHERE address_hash = ANY(CAST(:hashes AS bytea[])) AND key IS NOT NULL
ORDER BY run, key
""")
# Also rows that bear no hash, as those of a takeover.
_ERASE = tuple(
    text(f"UPDATE {where}")
    for where in (
        "delivery SET key = NULL, address_hash = NULL WHERE run = :run AND key = :key",
        "deferral SET key = NULL WHERE run = :run AND key = :key",
        "doubt d SET key = NULL FROM range r WHERE r.id = d.range AND r.run = :run AND d.key = :key",
        "late_outcome l SET key = NULL, address_hash = NULL FROM range r WHERE r.id = l.range AND r.run = :run AND l.key = :key",
        "page SET keys = array_replace(keys, CAST(:key AS text), NULL) WHERE run = :run AND CAST(:key AS text) = ANY(keys)",
    )
)


def erase(engine: Engine, hashes: Sequence[bytes]) -> int:
    """Erase everybody with one of these address hashes from every run in which an outcome of theirs bears it.

    Who was not reached yet is skipped (`Erased`). Suppressions stay: they see to it that no mail is sent again.
    A recipient of whom the ledger holds only a key, no address, is not found: erase that one in the recipients'
    database, where RecipientGone follows.

    Returns:
        how many recipients of runs were erased.

    Raises:
        LedgerUnavailable: nothing, or all of it, was done; safe to repeat.
    """
    with transaction(engine) as connection:
        people = connection.execute(_PEOPLE, {"hashes": list(hashes)}).all()
        for person in people:
            for statement in _ERASE:
                connection.execute(statement, {"run": person.run, "key": person.key})
    return len(people)
