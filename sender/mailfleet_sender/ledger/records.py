"""Small rows that operator and sender share: a run's snapshot, relays, reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from mailfleet_sender.contract.campaign import Campaign
from mailfleet_sender.contract.materials import Materials
from mailfleet_sender.contract.relay import Relay

from . import tables
from .connection import available, transaction

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from mailfleet_sender.contract.accounts import ReportReason

MESSAGE_LENGTH = 256
"""Bytes of a report's message, as conditions allow."""


class Snapshot(NamedTuple):
    """What a run was made or last edited with.

    Attributes:
        campaign: audience, message and policy.
        run_key: what identifies the run for ever, also in a ledger made anew: namespace/name/runId.
        namespace, name: of the campaign.
        materials: what the published plan took from ConfigMaps.
    """

    campaign: Campaign
    run_key: str
    namespace: str
    name: str
    materials: Materials = Materials()


def load_campaign(engine: Engine, run: int) -> Snapshot:
    """A run's snapshot.

    Raises:
        LookupError: the ledger knows no such run.
        LedgerUnavailable: it does not answer.
        ValueError: it was written by a newer version.
    """
    r, m = tables.run.c, tables.run_message.c
    query = select(r.namespace, r.name, r.run_id, m.body, m.attachments).join_from(tables.run, tables.run_message)
    with available(), engine.connect() as connection:
        row = connection.execute(query.where(r.id == run)).one_or_none()
    if row is None:
        raise LookupError(f"the ledger knows no run {run}")
    key = f"{row.namespace}/{row.name}/{row.run_id}"
    materials = Materials.from_document(row.attachments)
    return Snapshot(Campaign.from_snapshot(bytes(row.body)), key, row.namespace, row.name, materials)


def save_relay(engine: Engine, value: Relay) -> int:
    """Write a relay's row, if it says something new.

    Returns:
        its version: it rises with each change of any relay, and may be the version of the limits in Redis: of relays
        that share an account, the one that was changed last has the highest.

    Raises:
        LedgerUnavailable: try again.
    """
    body = value.model_dump(mode="json", by_alias=True)
    statement = insert(tables.relay).values(
        namespace=value.namespace, name=value.name, version=tables.relay_version.next_value(), body=body
    )
    changed = statement.on_conflict_do_update(
        index_elements=["namespace", "name"],
        set_={
            "version": statement.excluded.version,
            "body": statement.excluded.body,
            "updated_at": func.clock_timestamp(),
        },
        where=tables.relay.c.body.is_distinct_from(statement.excluded.body),
    )
    with transaction(engine) as connection:
        connection.execute(changed)
        query = select(tables.relay.c.version).where(
            tables.relay.c.namespace == value.namespace, tables.relay.c.name == value.name
        )
        return int(connection.scalars(query).one())


def load_relay(engine: Engine, namespace: str, name: str) -> tuple[Relay, int]:
    """A relay and its row's version.

    Raises:
        LookupError: there is no such row.
        LedgerUnavailable: the ledger does not answer.
    """
    with available(), engine.connect() as connection:
        query = select(tables.relay.c.body, tables.relay.c.version).where(
            tables.relay.c.namespace == namespace, tables.relay.c.name == name
        )
        row = connection.execute(query).one_or_none()
    if row is None:
        raise LookupError(f"the ledger knows no relay {namespace}/{name}")
    return Relay.model_validate(row.body), int(row.version)


def report(engine: Engine, run: int, reporter: str, reason: ReportReason | None, message: str = "") -> None:
    """Say what no counter shows: one row a run and reporter, replaced in place; None clears it.

    Args:
        engine: of the ledger.
        run: the run.
        reporter: a name that its successor has too, such as `planner` or the range's index.
        reason: what is wrong, or None.
        message: for people: what is wrong and the remedy; cut at 256 bytes; no address, no secret.

    Raises:
        LedgerUnavailable: not written.
        LookupError: the ledger knows no such run.
    """
    with transaction(engine) as connection:
        if connection.scalar(select(tables.run.c.id).where(tables.run.c.id == run)) is None:
            raise LookupError(f"the ledger knows no run {run}")
        if reason is None:
            connection.execute(
                delete(tables.report).where(tables.report.c.run == run, tables.report.c.reporter == reporter)
            )
            return
        values = {"reason": reason.value, "message": kept(message), "at": func.clock_timestamp()}
        connection.execute(
            insert(tables.report)
            .values(run=run, reporter=reporter, **values)
            .on_conflict_do_update(index_elements=["run", "reporter"], set_=values)
        )


def kept(message: str) -> str:
    """As much of a message for people as a row holds."""
    return message.encode()[:MESSAGE_LENGTH].decode(errors="ignore").replace("\0", "")
