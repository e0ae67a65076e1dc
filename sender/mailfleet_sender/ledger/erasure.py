"""Forgetting one person: the keys go, positions and counters stay, so every sum still holds."""

# ruff: noqa: E501 - each statement on its line

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from .connection import transaction
from .values import Timing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

_PEOPLE = text("""
SELECT DISTINCT run, key FROM delivery WHERE address_hash = ANY(CAST(:hashes AS bytea[])) AND key IS NOT NULL
ORDER BY run, key
""")
# Also rows that bear no hash, as those of a takeover. A line of a file is a key of the published plan alone.
_ERASE = tuple(
    text(statement)
    for statement in (
        "UPDATE delivery SET key = NULL, address_hash = NULL WHERE run = :run AND key = :key",
        "UPDATE deferral SET key = NULL WHERE run = :run AND key = :key",
        "UPDATE doubt d SET key = NULL FROM range r WHERE r.id = d.range AND r.run = :run AND d.key = :key",
        "UPDATE late_outcome l SET key = NULL, address_hash = NULL FROM range r WHERE r.id = l.range AND r.run = :run AND l.key = :key",
        "UPDATE page p SET keys = array_replace(keys, CAST(:key AS text), NULL) FROM run u WHERE u.id = :run AND p.run = u.id AND CAST(:key AS text) = ANY(p.keys) AND (p.plan = u.plan_id OR NOT EXISTS (SELECT 1 FROM csv_load l WHERE l.run = u.id))",
        "DELETE FROM csv_row c USING run u WHERE u.id = :run AND c.run = u.id AND c.plan = u.plan_id AND c.key = :key",
        "DELETE FROM csv_row c USING run u WHERE u.id = :run AND c.run = u.id AND c.plan = u.plan_id AND c.key IS NULL AND c.line = CAST(:line AS bigint)",
    )
)
# Addresses lie in the rows of files, mailed or not. All rows are looked through: few erase, and seldom.
_IN_FILES = text(r"""
WITH gone AS (
    DELETE FROM csv_row c USING csv_load l
    WHERE c.run = l.run AND c.plan = l.plan
      AND lower(btrim(c.fields[l.email], E' \t\r\n') COLLATE "C") = ANY(CAST(:addresses AS text[]))
    RETURNING c.run, c.plan, coalesce(c.key, c.line::text) AS key)
SELECT g.run, g.key, g.plan IS NOT DISTINCT FROM u.plan_id AS published FROM gone g JOIN run u ON u.id = g.run
""")
LINE_DIGITS = 18
"""A key that is longer is no line's number."""
SECONDS = 600.0
"""How long the rows of files may be looked through."""


def erase(engine: Engine, hashes: Sequence[bytes], addresses: Sequence[str] = ()) -> int:
    """Erase everybody with one of these address hashes from every run in which an outcome of theirs bears it, and
    everybody with one of these addresses from the rows of files.

    Who was not reached yet is skipped (`Erased`). Suppressions stay: they see to it that no mail is sent again.
    A recipient of a table of whom the ledger holds only a key, no address, is not found: erase that one in the
    recipients' database, where RecipientGone follows.

    Returns:
        how many recipients of runs were erased.

    Raises:
        LedgerUnavailable: nothing, or all of it, was done; safe to repeat.
    """
    plain = [address.strip().lower() for address in addresses]
    with transaction(engine, Timing(statement_seconds=SECONDS)) as connection:
        people = {(p.run, p.key) for p in connection.execute(_PEOPLE, {"hashes": list(hashes)})}
        in_files = connection.execute(_IN_FILES, {"addresses": plain}).all()
        people |= {(p.run, p.key) for p in in_files if p.published}
        for run, key in sorted(people):
            line = int(key) if key.isascii() and key.isdigit() and len(key) <= LINE_DIGITS else None
            for statement in _ERASE:
                connection.execute(statement, {"run": run, "key": key, "line": line})
    return len(people) + sum(not p.published for p in in_files)
