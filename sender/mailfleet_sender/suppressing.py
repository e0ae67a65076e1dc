"""The verb `suppress`: who must not have mail, in one namespace or anywhere. Only hashes are kept (decision 0014)."""

from __future__ import annotations

import csv
import re
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from .contract.environment import Exit
from .errors import LedgerUnavailable, SettingsError
from .ledger import AddressHasher, load_address_key, open_ledger
from .ledger.suppression import GLOBAL, Suppressed, entries, put, remove, usable_reason
from .message.address import BLANKS, is_address

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Engine

COLUMNS = ("address", "reason", "expires")
SHOWN = ("hash", "reason", "scope", "created", "expires")
FAULTS = 10
"""So many bad lines of an import are named."""
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
log = structlog.get_logger()


def suppress(arguments: Namespace, ledger_url: str) -> Exit:
    """Do what the command line asks.

    Raises:
        SettingsError: something on the command line or in the file cannot be meant; nothing was changed.
    """
    scope = _scope(arguments)
    engine = open_ledger(ledger_url, application_name="mailfleet-suppress")
    try:
        hasher = AddressHasher(load_address_key(engine))
        match arguments.action:
            case "add":
                wanted = _entries(hasher, arguments.addresses, arguments.reason, arguments.expires)
                _tell(f"{put(engine, scope or GLOBAL, wanted)} suppressed")
            case "remove":
                _tell(f"{remove(engine, scope or GLOBAL, hashes_of(hasher, arguments.addresses))} removed")
            case "import":
                with _opened(arguments.file) as lines:
                    wanted = _read(hasher, lines, arguments.reason)
                _tell(f"{put(engine, scope or GLOBAL, wanted)} suppressed")
            case "list":
                _list(engine, scope, hashes_of(hasher, arguments.addresses) if arguments.addresses else None)
            case _:
                _export(engine, scope)
    except LedgerUnavailable as error:
        log.warning("the ledger does not answer: run the same again", error=str(error))
        return Exit.INTERRUPTED
    finally:
        engine.dispose()
    return Exit.DONE


def _scope(arguments: Namespace) -> str | None:
    """The scope named; None (only where lists are shown): all."""
    if arguments.everywhere:
        return GLOBAL
    if arguments.namespace is None:
        return None
    if not _NAMESPACE.fullmatch(arguments.namespace):
        raise SettingsError("--namespace must be the name of a namespace, such as shop; for all of them: --global")
    return str(arguments.namespace)


def _tell(what: str) -> None:
    sys.stdout.write(what + "\n")


def hashes_of(hasher: AddressHasher, addresses: Sequence[str]) -> list[bytes]:
    """The hashes of addresses that a person typed.

    Raises:
        SettingsError: which of them is none.
    """
    return [_hash(hasher, address, f"address {n}") for n, address in enumerate(addresses, 1)]


def _hash(hasher: AddressHasher, address: str, of: str) -> bytes:
    """The hash of an address; which one is bad is told, the address itself is not."""
    plain = address.strip(BLANKS)
    found = hasher(plain) if is_address(plain) else None
    if found is None:
        raise SettingsError(f"{of} is no address like name@example.com")
    return found


def _entries(
    hasher: AddressHasher, addresses: Sequence[str], reason: str, expires: str | None
) -> dict[bytes, Suppressed]:
    until = _moment(expires, "--expires") if expires else None
    return {h: Suppressed(h, _reason(reason, "--reason"), until) for h in hashes_of(hasher, addresses)}


def _reason(reason: str, of: str) -> str:
    if not usable_reason(reason):
        raise SettingsError(f"{of} must be one word of letters, digits, - and _, such as Complaint")
    return reason


def _moment(value: str, of: str) -> datetime:
    """A day (its midnight in UTC) or a moment of ISO 8601; without a zone UTC is meant."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise SettingsError(f"{of} must be a day or a moment, such as 2027-01-31 or 2027-01-31T12:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@contextmanager
def _opened(file: str) -> Iterator[Iterable[str]]:
    if file == "-":
        yield sys.stdin
        return
    try:
        with Path(file).open(encoding="utf-8-sig", newline="") as lines:
            yield lines
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from None


def _read(hasher: AddressHasher, lines: Iterable[str], reason: str) -> dict[bytes, Suppressed]:
    """The rows of a CSV file with a header; the last row of an address counts."""
    try:
        rows = csv.DictReader(lines, strict=True)
        names = tuple(rows.fieldnames or ())
        if "address" not in names or set(names) - set(COLUMNS):
            raise SettingsError("the file's first line must name its columns: address, and if wanted reason, expires")
        found: dict[bytes, Suppressed] = {}
        faults: list[str] = []
        for row in rows:
            try:
                entry = _entry(hasher, row, reason, f"line {rows.line_num}")
            except SettingsError as error:
                faults.append(str(error))
            else:
                found[entry.address_hash] = entry
    except (csv.Error, UnicodeDecodeError) as error:
        raise SettingsError(f"the file is no CSV in UTF-8: {type(error).__name__}") from None
    if faults:
        more = f"; and {len(faults) - FAULTS} more" if len(faults) > FAULTS else ""
        raise SettingsError(f"nothing was imported: {'; '.join(faults[:FAULTS])}{more}")
    return found


def _entry(hasher: AddressHasher, row: dict[str, str | None], reason: str, of: str) -> Suppressed:
    if None in row:
        raise SettingsError(f"{of} has more fields than the first line")
    found = _hash(hasher, row["address"] or "", of)
    expires = row.get("expires")
    until = _moment(expires, f"{of}: expires") if expires else None
    return Suppressed(found, _reason(row.get("reason") or reason, f"{of}: reason"), until)


def _shown(found: Iterable[Suppressed]) -> Iterator[tuple[str, ...]]:
    for e in found:
        made = e.created_at.isoformat(timespec="seconds") if e.created_at else ""
        until = e.expires_at.isoformat(timespec="seconds") if e.expires_at else ""
        yield e.address_hash.hex(), e.reason, e.scope or "Global", made, until


def _list(engine: Engine, scope: str | None, hashes: Sequence[bytes] | None) -> None:
    _tell(f"{'HASH':64}  {'REASON':20}  {'SCOPE':20}  {'CREATED':25}  EXPIRES")
    for digest, reason, where, made, until in _shown(entries(engine, scope, hashes)):
        _tell(f"{digest}  {reason:20}  {where:20}  {made:25}  {until or 'never'}")


def _export(engine: Engine, scope: str | None) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(SHOWN)
    writer.writerows(_shown(entries(engine, scope)))
