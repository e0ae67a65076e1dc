"""Connections to the ledger that were cut while they lay in the pool."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg2
import pytest
from sqlalchemy import text

from mailfleet_sender.errors import LedgerUnavailable
from mailfleet_sender.ledger import connection, open_ledger
from mailfleet_sender.ledger.connection import transaction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine with one connection."""
    opened = open_ledger(database_url, application_name="test")
    yield opened
    opened.dispose()


def session(engine: Engine) -> int:
    """In which session of the server a transaction runs."""
    with transaction(engine) as open_now:
        return int(open_now.scalar(text("SELECT pg_backend_pid()")) or 0)


def cut(database_url: str, pid: int) -> None:
    """End a session, as a server that restarts does."""
    with contextlib.closing(psycopg2.connect(database_url)) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
        assert cursor.fetchone() == (True,)


def test_a_connection_that_was_cut_while_it_rested_is_replaced_unnoticed(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REST_SECONDS", 0.0)
    first = session(engine)
    assert session(engine) == first
    cut(database_url, first)
    assert session(engine) != first


def test_one_that_was_used_just_now_is_not_asked_first_and_its_loss_passes(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REST_SECONDS", 1_000.0)
    first = session(engine)
    cut(database_url, first)
    with pytest.raises(LedgerUnavailable):
        session(engine)
    assert session(engine) != first
