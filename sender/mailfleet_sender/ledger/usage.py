"""What each relay account was handed, in buckets of five minutes: what quotas are counted from (decision 0016)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from .connection import available

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import Connection, Engine

BUCKET_SECONDS = 300

# The bucket is of the database's clock; the account is the one that the range's owner named when it acquired.
_ADD = text(f"""
INSERT INTO usage (relay, bucket, range, n)
VALUES (:account, date_bin('{BUCKET_SECONDS} s', clock_timestamp(), TIMESTAMPTZ 'epoch'), :range, :n)
ON CONFLICT (relay, bucket, range) DO UPDATE SET n = usage.n + excluded.n
""")  # noqa: S608 - a constant of ours
_SINCE = text(f"""
SELECT bucket, sum(n)::int AS n FROM usage
WHERE relay = :account AND bucket > CAST(:since AS timestamptz) - interval '{BUCKET_SECONDS} s'
GROUP BY bucket ORDER BY bucket
""")  # noqa: S608 - a constant of ours


_TOTALS = text("""
SELECT relay, sum(n)::bigint AS n FROM usage
WHERE relay = ANY(CAST(:accounts AS text[])) AND bucket >= CAST(:since AS timestamptz)
GROUP BY relay
""")


def add_usage(connection: Connection, account: str | None, range_id: int, messages: int) -> None:
    """Count messages of a range as handed over to an account (None: to nobody's), in the caller's transaction."""
    if messages and account is not None:
        connection.execute(_ADD, {"account": account, "range": range_id, "n": messages})


def usage_since(engine: Engine, account: str, since: datetime) -> list[tuple[datetime, int]]:
    """Messages handed over to an account: (start of the bucket, messages), oldest first, no empty buckets.

    Args:
        engine: of the ledger.
        account: `Relay.account`.
        since: aware; the bucket that holds it is the first one.

    Raises:
        LedgerUnavailable: ask again.
    """
    with available(), engine.connect() as connection:
        return [(row.bucket, row.n) for row in connection.execute(_SINCE, {"account": account, "since": since})]


def usage_totals(engine: Engine, accounts: Iterable[str], since: datetime) -> dict[str, int]:
    """Messages handed over to each of these accounts in buckets that begin at `since` or later; none: left out.

    Raises:
        LedgerUnavailable: ask again.
    """
    with available(), engine.connect() as connection:
        rows = connection.execute(_TOTALS, {"accounts": list(accounts), "since": since})
        return {row.relay: int(row.n) for row in rows}
