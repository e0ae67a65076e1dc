"""Migrations only add, so that senders and operators of the version before go on (docs/decisions/0135).

Judged by Postgres' own catalogue before and after each of them.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from mailfleet_sender.errors import LedgerUnavailable, SettingsError
from mailfleet_sender.ledger import migrate, open_ledger
from mailfleet_sender.ledger.shape import parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alembic.script import Script

COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.atthasdef OR a.attidentity <> ''
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> 'alembic_version'
"""
RULES = """
SELECT c.relname, 'constraint ' || k.conname, pg_get_constraintdef(k.oid) FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid
WHERE c.relnamespace = 'public'::regnamespace AND NOT c.relispartition AND k.contype <> 'n'
UNION ALL
SELECT c.relname, 'unique index ' || i.relname, pg_get_indexdef(i.oid) FROM pg_index x
JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
WHERE x.indisunique AND c.relnamespace = 'public'::regnamespace AND NOT c.relispartition
UNION ALL
SELECT c.relname, 'trigger ' || t.tgname, pg_get_triggerdef(t.oid) FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
"""
OTHERS = """
SELECT 'function ' || p.oid::regprocedure, pg_get_functiondef(p.oid) FROM pg_proc p
WHERE p.pronamespace = 'public'::regnamespace
UNION ALL
SELECT 'sequence ' || c.relname, '' FROM pg_class c WHERE c.relkind = 'S' AND c.relnamespace = 'public'::regnamespace
"""


@dataclass
class Catalogue:
    """What there is, as far as a program's statements depend on it.

    Attributes:
        columns: (table, column) -> type, whether it must be given a value, whether it has a default.
        rules: (table, what) -> definition, of all that may refuse a row.
        others: what -> definition.
    """

    columns: dict[tuple[str, str], tuple[str, bool, bool]] = field(default_factory=dict)
    rules: dict[tuple[str, str], str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, url: str) -> Catalogue:
        """That of a database."""
        return cls(
            {(table, name): (kind, must, has) for table, name, kind, must, has in rows(url, COLUMNS)},
            {(table, what): text for table, what, text in rows(url, RULES)},
            dict(rows(url, OTHERS)),
        )

    @property
    def tables(self) -> set[str]:
        """All tables."""
        return {table for table, _ in self.columns}


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def contractions(before: Catalogue, after: Catalogue) -> Iterator[str]:
    """What a program made for the former could miss, or be refused, in the latter."""
    for (table, name), (kind, must, has) in before.columns.items():
        now = after.columns.get((table, name))
        if now is None:
            yield f"{table}.{name} is gone"
        elif now[0] != kind:
            yield f"{table}.{name} is no longer {kind}"
        elif (now[1] and not must) or (has and not now[2]):
            yield f"{table}.{name} must be given a value now"
    for (table, name), (_, must, has) in after.columns.items():
        if table in before.tables and (table, name) not in before.columns and must and not has:
            yield f"{table}.{name} is new, and must be given a value"
    for (table, what), text in after.rules.items():
        if table in before.tables and before.rules.get((table, what)) != text:
            yield f"{table}: {what} may refuse rows"
    yield from (
        f"{what} is gone, or another" for what in before.others if after.others.get(what) != before.others[what]
    )


def scripts() -> list[Script]:
    """All migrations, oldest first."""
    return [*ScriptDirectory.from_config(config()).walk_revisions()][::-1]


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", "mailfleet_sender.ledger:migrations")
    return made


def upgrade(url: str, revision: str) -> None:
    """Bring a ledger to this revision."""
    engine = open_ledger(url, application_name="test")
    with engine.begin() as connection:
        settings = config()
        settings.attributes["connection"] = connection
        command.upgrade(settings, revision)
    engine.dispose()


def test_a_migration_only_adds_unless_it_names_the_release_that_may_take_away(database_url: str) -> None:
    before, contract = Catalogue(), 1
    for script in scripts():
        upgrade(database_url, script.revision)
        after = Catalogue.of(database_url)
        release = getattr(script.module, "contracts_in", None)
        found = [*contractions(before, after)]
        assert release or not found, f"{script.revision}: {found}; say contracts_in, and begin another contract"
        called = parts(script.revision)
        assert called, f"{script.revision}: called by four digits, as 0009"
        assert called[1] == contract + bool(release), f"{script.revision}: of which contract?"
        before, contract = after, called[1]
    assert len(before.tables) > 10


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("ALTER TABLE run DROP audience", "run.audience is gone"),
        ("ALTER TABLE run RENAME audience TO people", "run.audience is gone"),
        ("DROP TABLE preflight", "preflight.name is gone"),
        ("ALTER TABLE report RENAME TO reports", "report.run is gone"),
        ("ALTER TABLE usage ALTER n TYPE bigint", "usage.n is no longer integer"),
        ("ALTER TABLE run ADD colour text NOT NULL", "run.colour is new, and must be given a value"),
        ("ALTER TABLE delivery ADD colour text NOT NULL", "delivery.colour is new, and must be given a value"),
        ("ALTER TABLE run ALTER key_type SET NOT NULL", "run.key_type must be given a value now"),
        ("ALTER TABLE run ALTER planned DROP DEFAULT", "run.planned must be given a value now"),
        ("ALTER TABLE run ADD CONSTRAINT few CHECK (planned < 9)", "run: constraint few may refuse rows"),
        ("CREATE UNIQUE INDEX one ON run (name)", "run: unique index one may refuse rows"),
        ("DROP SEQUENCE relay_version", "sequence relay_version is gone, or another"),
        ("DROP FUNCTION width(int4multirange) CASCADE", "function width(int4multirange) is gone, or another"),
    ],
)
def test_what_takes_away_is_seen(database_url: str, statement: str, found: str) -> None:
    migrate(database_url)
    before = Catalogue.of(database_url)
    rows(database_url, statement)
    assert found in [*contractions(before, Catalogue.of(database_url))]


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE run ADD colour text",
        "ALTER TABLE run ADD colour text NOT NULL DEFAULT 'red'",
        "ALTER TABLE report ALTER message DROP NOT NULL",
        "CREATE TABLE colour (name text NOT NULL PRIMARY KEY, run bigint NOT NULL REFERENCES run CHECK (run > 7))",
        "CREATE INDEX run_name ON run (name)",
        "DROP INDEX range_active",
        "ALTER TABLE run DROP CONSTRAINT run_state",
    ],
)
def test_what_adds_or_allows_more_is_left_alone(database_url: str, statement: str) -> None:
    migrate(database_url)
    before = Catalogue.of(database_url)
    rows(database_url, statement)
    assert [*contractions(before, Catalogue.of(database_url))] == []


def test_a_ledger_that_a_newer_version_migrated_is_left_in_its_shape(database_url: str) -> None:
    newest = migrate(database_url)
    later = f"{int(newest[:4]) + 1:04d}"
    rows(database_url, f"ALTER TABLE run ADD colour text; UPDATE alembic_version SET version_num = '{later}'")
    before = Catalogue.of(database_url)
    assert migrate(database_url) == later
    assert Catalogue.of(database_url) == before


def told(call: Callable[[], object]) -> str:
    with pytest.raises((SettingsError, LedgerUnavailable)) as caught:
        call()
    return str(caught.value)


def test_one_that_took_away_what_this_version_uses_is_refused_and_left_alone(database_url: str) -> None:
    newest = migrate(database_url)
    later = f"{int(newest[:4]) + 4:04d}.9"
    rows(database_url, f"ALTER TABLE run DROP audience; UPDATE alembic_version SET version_num = '{later}'")
    assert f"the ledger's shape is {later}, made by a newer version" in told(lambda: migrate(database_url))
    assert rows(database_url, "SELECT version_num FROM alembic_version") == [(later,)]
