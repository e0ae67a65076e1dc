"""Migrations: once, whoever runs them and how often; and the tables are what the code says."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

import psycopg2
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from mailfleet_sender.errors import LedgerUnavailable
from mailfleet_sender.ledger import make_partitions, migrate, open_ledger
from mailfleet_sender.ledger.tables import metadata
from services import free_port


def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    with contextlib.closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_four_that_migrate_at_once_all_succeed(database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(migrate, database_url) for _ in range(4)]:
            done.result(60)
    assert rows(database_url, "SELECT version_num FROM alembic_version") == [("0009",)]
    assert rows(database_url, "SELECT count(*) FROM installation") == [(1,)]


def test_the_tables_are_what_the_code_says(database_url: str) -> None:
    migrate(database_url)
    engine = open_ledger(database_url, application_name="test")
    months = {name for (name,) in rows(database_url, "SELECT inhrelid::regclass::text FROM pg_inherits")}

    def ours(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or (name not in months and name != "alembic_version")

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_name": ours})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_the_months_of_delivery_are_made_ahead(database_url: str) -> None:
    migrate(database_url)
    today = datetime.now(UTC)
    names = {name for (name,) in rows(database_url, "SELECT inhrelid::regclass::text FROM pg_inherits"
                                                    " WHERE inhparent = 'delivery'::regclass")}  # fmt: skip
    assert f"delivery_{today:%Y_%m}" in names
    assert "delivery_default" in names
    assert len(names) == 5


def test_a_month_that_comes_late_takes_its_rows_from_the_default_partition(database_url: str) -> None:
    migrate(database_url)
    insert = "INSERT INTO delivery (at, run, range, pos, attempt, outcome) VALUES ('{}', 1, 1, {}, 1, 'sent')"
    rows(database_url, insert.format("2031-01-31 23:59:59+00", 0))
    rows(database_url, insert.format("2031-02-01 00:00:00+00", 1))
    rows(database_url, insert.format("2031-07-01 00:00:00+00", 2))
    assert rows(database_url, "SELECT count(*) FROM delivery_default") == [(3,)]
    engine = open_ledger(database_url, application_name="test")
    made = make_partitions(engine, date(2030, 12, 31))
    assert made == ["delivery_2030_12", "delivery_2031_01", "delivery_2031_02", "delivery_2031_03"]
    assert make_partitions(engine, date(2030, 12, 31)) == []
    assert rows(database_url, "SELECT pos, tableoid::regclass::text FROM delivery ORDER BY id") == [
        (0, "delivery_2031_01"),
        (1, "delivery_2031_02"),
        (2, "delivery_default"),
    ]
    rows(database_url, insert.format("2031-02-02 00:00:00+00", 3))
    assert rows(database_url, "SELECT count(DISTINCT id) FROM delivery") == [(4,)]
    engine.dispose()


def test_a_database_that_does_not_answer_is_said_to_be_unavailable() -> None:
    with pytest.raises(LedgerUnavailable):
        migrate(f"postgresql://postgres@127.0.0.1:{free_port()}/none")
