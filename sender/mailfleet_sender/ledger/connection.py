"""Connections to the ledger: how they are opened, what each transaction begins with, which errors pass."""

from __future__ import annotations

import time
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from mailfleet_sender.errors import LedgerUnavailable, SettingsError

from .values import Timing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

_DRIVERS = ("postgresql+psycopg2://", "postgres+psycopg2://", "postgresql+psycopg://")
_PASSING = (
    psycopg2.OperationalError,
    psycopg2.InterfaceError,
    psycopg2.errors.ReadOnlySqlTransaction,
    psycopg2.errors.IdleInTransactionSessionTimeout,
)
_REACH: dict[str, Any] = {
    "connect_timeout": 5,
    # A peer that vanished is noticed within 10 s, by whichever side has something to say.
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

REST_SECONDS = 1.0
"""A connection that was used less long ago is taken to be there still."""


def open_ledger(url: str, *, application_name: str, pool_size: int = 1) -> Engine:
    """An engine for the ledger; nothing is connected yet.

    Args:
        url: what libpq takes (postgresql://, postgres://, several hosts, or key=value), or the same with
            SQLAlchemy's name of a driver. Works behind PgBouncer in transaction mode: no session state is used.
        application_name: shown in pg_stat_activity.
        pool_size: the most connections at once; a sender uses at most two.

    Raises:
        SettingsError: the text is no URL of a Postgres database. It is not shown: it holds a password.
    """
    for driver in _DRIVERS:
        if url.startswith(driver):
            url = "postgresql://" + url.removeprefix(driver)
    try:
        psycopg2.extensions.parse_dsn(url)
    except psycopg2.ProgrammingError:
        raise SettingsError("the ledger's URL is none: write postgresql://user:password@host:5432/database") from None

    def connect() -> psycopg2.extensions.connection:
        connection: psycopg2.extensions.connection = psycopg2.connect(
            url, application_name=application_name[:63], client_encoding="utf8", **_REACH
        )
        return connection

    engine = create_engine(
        "postgresql+psycopg2://",
        creator=connect,
        pool_size=pool_size,
        max_overflow=0,
        isolation_level="READ COMMITTED",
    )
    _ask_after_rest(engine)
    return engine


def _ask_after_rest(engine: Engine) -> None:
    """A connection that has lain unused is asked whether it is still there; pool_pre_ping would ask each time."""

    @event.listens_for(engine, "checkin")
    def put_back(_: object, record: ConnectionPoolEntry) -> None:
        record.info["since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def taken(connection: PoolProxiedConnection, record: ConnectionPoolEntry, _: object) -> None:
        if time.monotonic() - record.info.get("since", inf) > REST_SECONDS:
            try:
                engine.dialect.do_ping(connection)
            except psycopg2.Error as error:
                raise DisconnectionError from error  # the pool opens another one


def settings_of(timing: Timing) -> str:
    """What every transaction begins with, in one round trip.

    An acknowledged commit must be durable whatever the server's default; and a frozen sender must not hold
    its range's row for longer than the idle limit (DESIGN section 5, invariant 8).
    """
    return (
        "SET LOCAL synchronous_commit = on;"
        f" SET LOCAL idle_in_transaction_session_timeout = {_milliseconds(timing.idle_seconds)};"
        f" SET LOCAL statement_timeout = {_milliseconds(timing.statement_seconds)};"
        f" SET LOCAL lock_timeout = {_milliseconds(timing.lock_seconds)}"
    )


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


@contextmanager
def transaction(engine: Engine, timing: Timing | None = None) -> Iterator[Connection]:
    """One transaction of the operator or a planner, with the limits of `settings_of`.

    Raises:
        LedgerUnavailable: the ledger does not answer or refuses for now; whether a COMMIT went through is
            then unknown, so what is done in here must be safe to repeat.
    """
    with available(), engine.begin() as connection:
        connection.execute(text(settings_of(timing or Timing())))
        yield connection


@contextmanager
def available() -> Iterator[None]:
    """Turn what passes by itself into `LedgerUnavailable`; let mistakes of ours through."""
    try:
        yield
    except SQLAlchemyError as error:
        if not passes(error):
            raise
        raise LedgerUnavailable(why(error)) from error


def passes(error: Exception) -> bool:
    """Whether an error is the world's and passes, rather than a mistake of ours.

    psycopg2 knows no cleaner line: lost connections are Operational, Interface or bare DatabaseErrors, time
    limits and lock limits Operational ones; the rest is named.
    """
    if isinstance(error, PoolTimeout):
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error  # COPY's errors come as psycopg2 raises them
    return (
        (isinstance(error, DBAPIError) and error.connection_invalidated)
        or isinstance(cause, _PASSING)
        or type(cause) is psycopg2.DatabaseError
    )


def why(error: Exception) -> str:
    """The first line of the driver's words: names of hosts and limits, no values of rows."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return next(iter(str(cause).strip().splitlines()), type(cause).__name__)
