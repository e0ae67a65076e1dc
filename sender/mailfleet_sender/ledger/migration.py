"""The verb `migrate`: brings a ledger to this version's shape (runs in the operator's init container)."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import text

from .connection import available, open_ledger
from .partitions import add_partitions
from .shape import must_migrate

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection, Engine

_LOCK = "SELECT pg_advisory_xact_lock(hashtext('mailfleet ledger migrations'))"
_ADDRESS_KEY_BYTES = 32


def migrate(url: str) -> str:
    """Bring the ledger at `url` to the newest revision, in one transaction; safe to repeat, and by two at once.

    A ledger that a newer version has migrated is left in its shape, if this version can work with it.
    Makes the partitions of delivery for the coming months and, once in a ledger's life, the key of the address
    hash: a chart would make a new one at each `helm template`.

    Returns:
        the ledger's revision now.

    Raises:
        LedgerUnavailable: the database does not answer.
        SettingsError: the URL is none, or the ledger's shape one that this version cannot work with.
    """
    engine = open_ledger(url, application_name="mailfleet-migrate")
    try:
        with available(), engine.begin() as connection:
            # No lock_timeout: the second of two waits until the first is done. Lost connections end by keepalives.
            connection.execute(text(_LOCK))
            revision = _upgrade(connection)
            add_partitions(connection, datetime.now(UTC).date())
            connection.execute(
                text("INSERT INTO installation (address_key) VALUES (:key) ON CONFLICT DO NOTHING"),
                {"key": secrets.token_bytes(_ADDRESS_KEY_BYTES)},
            )
            return revision
    finally:
        engine.dispose()


def revisions(url: str) -> tuple[str | None, list[str]]:
    """The revision that the ledger at `url` has (None: it was never migrated); those that this version knows, in order.

    Raises:
        LedgerUnavailable: the database does not answer.
        SettingsError: the URL is none.
    """
    engine = open_ledger(url, application_name="mailfleet-check")
    try:
        with available(), engine.connect() as connection:
            return _revision(connection), _known()
    finally:
        engine.dispose()


def _upgrade(connection: Connection) -> str:
    from alembic import command  # noqa: PLC0415

    has, known = _revision(connection), _known()
    if must_migrate(has, known):
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        return known[-1]
    return has or ""


def _revision(connection: Connection) -> str | None:
    from alembic.migration import MigrationContext  # noqa: PLC0415

    return MigrationContext.configure(connection).get_current_revision()


def _known() -> list[str]:
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    return [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()][::-1]


def _config() -> Config:
    # Only the sender's image has Alembic; the operator imports this package without it.
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "mailfleet_sender.ledger:migrations")
    return config


def load_address_key(engine: Engine) -> bytes:
    """The installation's key of the address hash (HMAC-SHA-256 of the lower-cased address).

    Raises:
        LedgerUnavailable: the ledger does not answer.
    """
    with available(), engine.connect() as connection:
        key = connection.scalar(text("SELECT address_key FROM installation"))
        return bytes(key)
