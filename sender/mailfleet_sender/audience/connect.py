"""The recipients' database: how it is reached, and what its refusals mean."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg2
import psycopg2.extensions
import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.errors import AudienceUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

CONNECTION = {
    "connect_timeout": "10",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""libpq's parameters unless the URL names them: seconds, tcp_user_timeout in milliseconds."""

# What a server answers while it cannot serve anybody (57P03, 53300): the wording, because libpq gives no
# SQLSTATE for a failed connection.
_BUSY = re.compile(
    r"starting up|shutting down|in recovery|not yet accepting|too many|remaining connection slots", re.IGNORECASE
)
_ANSWERED = re.compile(r"FATAL|authentication|no password supplied|SSL|certificate|pg_hba", re.IGNORECASE)


def open_recipients(url: str, *, application_name: str) -> sa.Engine:
    """An engine for the recipients' database: read-only transactions, UTF-8, two connections at most.

    Args:
        url: whatever libpq takes (postgresql:// and postgres://, several hosts, sslmode=...), or SQLAlchemy's
            form with a driver's name.
        application_name: shown to the database's owner in pg_stat_activity.

    Raises:
        AudienceUnavailable: DatabaseRefused, the URL cannot be read (its text is never told).
    """
    plain = re.sub(r"^(postgres(?:ql)?)\+\w+://", r"\1://", url.strip())
    try:
        given = psycopg2.extensions.parse_dsn(plain)
    except psycopg2.ProgrammingError:
        raise AudienceUnavailable(
            ReportReason.DATABASE_REFUSED,
            "the recipients' database URL cannot be read: write postgresql://user:password@host:port/database into "
            "the Secret that databaseSecretRef names, special characters of the password percent-encoded",
        ) from None
    parameters: dict[str, Any] = {
        **CONNECTION, "application_name": application_name[:63], **given, "client_encoding": "UTF8"
    }  # fmt: skip
    # A creator keeps host, user and password out of the engine's own URL, which tracebacks print.
    return sa.create_engine(
        "postgresql+psycopg2://",
        creator=lambda: psycopg2.connect(**parameters),
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=1,
        pool_pre_ping=False,
        use_native_hstore=False,
        hide_parameters=True,
        # BEGIN READ ONLY for each transaction rather than a session setting: it holds behind PgBouncer too.
        execution_options={"postgresql_readonly": True},
    )


@contextmanager
def reading(engine: sa.Engine, *, repeatable: bool = False) -> Iterator[sa.Connection]:
    """A read-only transaction; failures to reach or to enter the database leave it as AudienceUnavailable.

    Args:
        repeatable: one snapshot for all statements (REPEATABLE READ).

    Raises:
        AudienceUnavailable: DatabaseUnavailable or DatabaseRefused.
    """
    try:
        with engine.connect() as connection:
            if repeatable:
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection
    except sa.exc.DBAPIError as error:
        if (known := unavailable(error)) is not None:
            raise known from None
        raise
    except sa.exc.TimeoutError:
        raise AudienceUnavailable(
            ReportReason.DATABASE_UNAVAILABLE, "the recipients' database does not answer"
        ) from None


def sqlstate(error: sa.exc.DBAPIError) -> str:
    """The SQLSTATE of the server's answer, "" if there was none."""
    return getattr(error.orig, "pgcode", None) or ""


def unavailable(error: sa.exc.DBAPIError) -> AudienceUnavailable | None:
    """What a database error means, if it is the connection's or the role's and not the statement's."""
    state = sqlstate(error)
    if state.startswith("42501"):
        return AudienceUnavailable(
            ReportReason.DATABASE_REFUSED,
            "the database role may not read what the campaign names: GRANT USAGE on the schema and SELECT on the "
            "table, or the columns, to the role of the URL",
        )
    if state in {"57014", "55P03"}:
        return AudienceUnavailable(
            ReportReason.DATABASE_UNAVAILABLE,
            "the recipients' database cancelled a read (timeout or lock): an index on the key column, or a longer "
            "statement_timeout of the role, helps",
        )
    if state[:2] in {"08", "40", "53", "57", "58"} or state in {"", "25P03"}:
        if not state and not isinstance(error.orig, psycopg2.OperationalError | psycopg2.InterfaceError):
            return None
        text = str(error.orig)
        if not state and _ANSWERED.search(text) and not _BUSY.search(text):
            return AudienceUnavailable(ReportReason.DATABASE_REFUSED, _refusal(text))
        return AudienceUnavailable(
            ReportReason.DATABASE_UNAVAILABLE,
            "the recipients' database cannot be reached: check that it runs, the host and port in the Secret that "
            "databaseSecretRef names, and the NetworkPolicy between",
        )
    return None


def _refusal(text: str) -> str:
    """The remedy for a refused connection; libpq's own text names host and user, so it is not passed on."""
    where = "the Secret that databaseSecretRef names"
    if re.search(r"SSL|certificate", text) and "pg_hba" not in text:
        return f"TLS with the recipients' database failed: check sslmode and sslrootcert in {where}"
    if re.search(r"pg_hba", text):
        return f"the recipients' database accepts no connection from here (pg_hba.conf), or wants TLS: check {where}"
    if re.search(r'database ".*" does not exist', text):
        return f"the recipients' database server has no database of that name: check the URL in {where}"
    if re.search(r"permission denied for database", text):
        return "the role may not connect to the recipients' database: GRANT CONNECT to the role of the URL"
    return f"the recipients' database refused user or password: check the URL in {where}"
