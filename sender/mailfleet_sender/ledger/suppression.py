"""Addresses that get no mail, as keyed hashes: of one namespace, or of all (scope Global)."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import text

from .connection import available, transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine

GLOBAL = ""
"""`suppression.scope` of what holds for every namespace."""
HARD_BOUNCE = "HardBounce"
"""Reason of what a relay said does not exist."""
SUPPRESSED_CODE = "Suppressed:{reason}"
"""`delivery.code` of a recipient that is suppressed."""
BATCH = 50_000
"""Entries a transaction: far below the limits that each transaction of ours has."""

_REASON = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")

# Sorted, so that two senders that meet the same addresses never wait for each other in a circle.
_BOUNCED = text(f"""
INSERT INTO suppression (scope, address_hash, reason)
SELECT u.namespace, h, '{HARD_BOUNCE}' FROM run u, unnest(CAST(:hashes AS bytea[])) AS h WHERE u.id = :run ORDER BY h
ON CONFLICT (scope, address_hash) DO UPDATE
    SET reason = excluded.reason, created_at = excluded.created_at, expires_at = NULL
    WHERE suppression.expires_at IS NOT NULL
""")  # noqa: S608 - a constant of ours
_LOOK_UP = text("""
SELECT DISTINCT ON (address_hash) address_hash, reason FROM suppression
WHERE scope IN (:namespace, '') AND address_hash = ANY(CAST(:hashes AS bytea[]))
  AND (expires_at IS NULL OR expires_at > clock_timestamp())
ORDER BY address_hash, scope DESC
""")
_PUT = text("""
INSERT INTO suppression (scope, address_hash, reason, expires_at)
SELECT :scope, h, r, e FROM unnest(CAST(:hashes AS bytea[]), CAST(:reasons AS text[]), CAST(:expires AS timestamptz[]))
    AS t (h, r, e) ORDER BY h
ON CONFLICT (scope, address_hash) DO UPDATE SET reason = excluded.reason, expires_at = excluded.expires_at
""")
_REMOVE = text("DELETE FROM suppression WHERE scope = :scope AND address_hash = ANY(CAST(:hashes AS bytea[]))")
_ENTRIES = text("""
SELECT scope, address_hash, reason, created_at, expires_at FROM suppression
WHERE (CAST(:scope AS text) IS NULL OR scope = :scope)
  AND (CAST(:hashes AS bytea[]) IS NULL OR address_hash = ANY(CAST(:hashes AS bytea[])))
ORDER BY scope, address_hash
""")


@dataclass(frozen=True, slots=True)
class AddressHasher:
    """HMAC-SHA-256 of an address in lower case, with the installation's key: the ledger never holds an address.

    Usable addresses are ASCII, so lower case is the same everywhere.
    """

    key: bytes = field(repr=False)

    def __call__(self, address: str) -> bytes | None:
        """The hash of an address; None where there is none."""
        plain = address.strip().lower()
        return hmac.digest(self.key, plain.encode("utf-8", "replace"), "sha256") if plain else None


@dataclass(frozen=True, slots=True)
class Suppressed:
    """One entry of the list.

    Attributes:
        scope: a namespace, or "" for all.
        address_hash: what `AddressHasher` made of the address.
        reason: a word.
        created_at: when it was first suppressed; set by the ledger.
        expires_at: from then on mail is sent again; None: never.
    """

    address_hash: bytes
    reason: str
    expires_at: datetime | None = None
    scope: str = GLOBAL
    created_at: datetime | None = None


def usable_reason(reason: str) -> bool:
    """Whether a reason may stand in codes and lists: a word of at most 63 letters, digits, - and _."""
    return _REASON.fullmatch(reason) is not None


def add_bounced(connection: Connection, run: int, hashes: Iterable[bytes]) -> None:
    """Suppress addresses that do not exist, in the namespace of the run, within the transaction that records them.

    An entry that was to expire holds for good from now on.
    """
    if found := sorted(set(hashes)):
        connection.execute(_BOUNCED, {"run": run, "hashes": found})


def suppressed(engine: Engine, namespace: str, hashes: Sequence[bytes]) -> dict[bytes, str]:
    """Those of `hashes` that are suppressed for a namespace now, with the reason; its own before the global one.

    Raises:
        LedgerUnavailable: ask again.
    """
    with available(), engine.connect() as connection:
        rows = connection.execute(_LOOK_UP, {"namespace": namespace, "hashes": list(hashes)})
        return {bytes(row.address_hash): row.reason for row in rows}


def put(engine: Engine, scope: str, entries: Mapping[bytes, Suppressed]) -> int:
    """Suppress addresses; an entry that is there gets the new reason and expiry. Safe to repeat.

    Returns:
        how many entries were written.

    Raises:
        LedgerUnavailable: some batches of 50,000 may be written; repeat all of it.
    """
    everything = sorted(entries.values(), key=lambda e: e.address_hash)
    for first in range(0, len(everything), BATCH):
        part = everything[first : first + BATCH]
        with transaction(engine) as connection:
            connection.execute(
                _PUT,
                {
                    "scope": scope,
                    "hashes": [e.address_hash for e in part],
                    "reasons": [e.reason for e in part],
                    "expires": [e.expires_at for e in part],
                },
            )
    return len(everything)


def remove(engine: Engine, scope: str, hashes: Sequence[bytes]) -> int:
    """Let addresses have mail again, in one scope.

    Returns:
        how many entries were there.
    """
    with transaction(engine) as connection:
        return connection.execute(_REMOVE, {"scope": scope, "hashes": list(hashes)}).rowcount


def entries(engine: Engine, scope: str | None, hashes: Sequence[bytes] | None = None) -> Iterator[Suppressed]:
    """What is suppressed, expired entries among it: of one scope or of all (None), by a server-side cursor.

    Raises:
        LedgerUnavailable: ask again.
    """
    values = {"scope": scope, "hashes": None if hashes is None else list(hashes)}
    with available(), engine.connect() as connection:
        for row in connection.execution_options(stream_results=True).execute(_ENTRIES, values):
            yield Suppressed(bytes(row.address_hash), row.reason, row.expires_at, row.scope, row.created_at)
