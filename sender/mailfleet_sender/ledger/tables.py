"""The ledger's tables (LEDGER section 2). The migrations make them; a test holds the two against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, INT4MULTIRANGE, JSONB, TIMESTAMP

if TYPE_CHECKING:
    from datetime import datetime

metadata = MetaData()

COUNTERS = ("sent", "failed", "suppressed", "skipped", "uncertain", "cancelled", "deferred")
"""The terms of the sum that are counted up; `remaining` is not stored but counted from the cursors."""

_WHEN = TIMESTAMP(timezone=True)


def _counters(kind: type[BigInteger | Integer]) -> list[Column[int]]:
    return [Column(name, kind, nullable=False, server_default=text("0")) for name in COUNTERS]


def _now(name: str) -> Column[datetime]:
    return Column(name, _WHEN, nullable=False, server_default=text("clock_timestamp()"))


def _positions(name: str) -> Column[object]:
    return Column(name, INT4MULTIRANGE, nullable=False, server_default=text("'{}'"))


def _run(*, primary: bool = False) -> Column[int]:
    return Column("run", BigInteger, ForeignKey("run.id"), primary_key=primary, nullable=False, autoincrement=False)


run = Table(
    "run",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("spec_hash", Text, nullable=False),
    Column("key_type", Text),
    Column("state", Text, nullable=False, server_default=text("'Planning'")),
    Column("plan_wanted", Integer, nullable=False, server_default=text("0")),
    Column("plan_id", Integer),
    Column("on_uncertain", Text, nullable=False),
    Column("planned", BigInteger, nullable=False, server_default=text("0")),
    *_counters(BigInteger),
    _now("created_at"),
    Column("started_at", _WHEN),
    Column("ended_at", _WHEN),
    Column("retry_generation", Integer, nullable=False, server_default=text("0")),
    Column("end_reason", Text),
    Column("paused_at", _WHEN),
    Column("pause_reason", Text),
    Column("pause_message", Text),
    Column("resumed_at", _WHEN),
    Column("audience", JSONB),
    Column("retried", BigInteger),
    Column("approved_before", Integer),
    UniqueConstraint("namespace", "name", "run_id"),
)

run_message = Table(
    "run_message",
    metadata,
    _run(primary=True),
    Column("body", LargeBinary, nullable=False),
    Column("attachments", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
)

page = Table(
    "page",
    metadata,
    _run(primary=True),
    Column("plan", Integer, primary_key=True),
    Column("wave", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("keys", ARRAY(Text), nullable=False),
    Column("attempts", ARRAY(SmallInteger)),
    Column("since", ARRAY(_WHEN)),
    Column("reason", Text),
)

csv_load = Table(
    "csv_load",
    metadata,
    _run(primary=True),
    Column("plan", Integer, primary_key=True, autoincrement=False),
    Column("columns", ARRAY(Text), nullable=False),
    Column("email", Integer, nullable=False),
    Column("keyed", Boolean, nullable=False),
    _now("at"),
)

csv_row = Table(
    "csv_row",
    metadata,
    Column("run", BigInteger, primary_key=True, autoincrement=False),
    Column("plan", Integer, primary_key=True, autoincrement=False),
    Column("line", BigInteger, primary_key=True, autoincrement=False),
    Column("key", Text),
    Column("fields", ARRAY(Text), nullable=False),
    Index("csv_row_key", "run", "plan", "key", postgresql_where=text("key IS NOT NULL")),
)

wave = Table(
    "wave",
    metadata,
    _run(primary=True),
    Column("number", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("ranges", Integer, nullable=False),
    Column("planned", BigInteger, nullable=False),
    _now("created_at"),
    Column("held", Boolean, nullable=False, server_default=text("false")),
    Column("ended_at", _WHEN),
)

range_ = Table(
    "range",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _run(),
    Column("wave", Integer, nullable=False),
    Column("idx", Integer, nullable=False),
    Column("plan", Integer, nullable=False),
    Column("page_wave", Integer, nullable=False),
    Column("first_page", Integer, nullable=False),
    Column("planned", Integer, nullable=False),
    Column("from_verdict", Text),
    Column("state", Text, nullable=False, server_default=text("'Open'")),
    Column("epoch", BigInteger, nullable=False, server_default=text("0")),
    Column("seq", BigInteger, nullable=False, server_default=text("0")),
    Column("owner", Uuid),
    Column("lease_until", _WHEN),
    Column("pos", Integer, nullable=False, server_default=text("0")),
    _positions("open"),
    _positions("returned"),
    _positions("resend"),
    _positions("resending"),
    *_counters(Integer),
    Column("account", Text),
    UniqueConstraint("run", "wave", "idx"),
    Index("range_open", "run", postgresql_where=text("state = 'Open'")),
    Index("range_active", "run", postgresql_where=text("state = 'Open' AND epoch > 0")),
    # Room in each block for new versions: with it, and as no index holds what a write changes, these are HOT.
    postgresql_with={"fillfactor": 20},
)

delivery = Table(
    "delivery",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    _now("at"),
    Column("run", BigInteger, nullable=False),
    Column("range", BigInteger, nullable=False),
    Column("pos", Integer, nullable=False),
    Column("key", Text),
    Column("attempt", SmallInteger, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("code", Text),
    Column("enhanced", Text),
    Column("reply", Text),
    Column("relay_queue_id", Text),
    Column("address_hash", LargeBinary),
    Index("delivery_key", "run", "key"),
    Index("delivery_failed", "run", "enhanced", "code", postgresql_where=text("outcome = 'failed'")),
    Index("delivery_address", "address_hash", postgresql_where=text("address_hash IS NOT NULL")),
    postgresql_partition_by="RANGE (at)",
)

deferral = Table(
    "deferral",
    metadata,
    Column("range", BigInteger, primary_key=True, autoincrement=False),
    Column("pos", Integer, primary_key=True, autoincrement=False),
    Column("run", BigInteger, nullable=False),
    Column("key", Text),
    Column("attempt", SmallInteger, nullable=False),
    Column("since", _WHEN, nullable=False),
    Column("due_at", _WHEN, nullable=False),
    Index("deferral_due", "run", "due_at"),
)

doubt = Table(
    "doubt",
    metadata,
    Column("range", BigInteger, primary_key=True, autoincrement=False),
    Column("pos", Integer, primary_key=True, autoincrement=False),
    Column("key", Text),
    Column("retried", Boolean, nullable=False, server_default=text("false")),
)

late_outcome = Table(
    "late_outcome",
    metadata,
    Column("range", BigInteger, primary_key=True, autoincrement=False),
    Column("pos", Integer, primary_key=True, autoincrement=False),
    Column("key", Text),
    Column("outcome", Text, nullable=False),
    Column("attempt", SmallInteger, nullable=False),
    Column("code", Text),
    Column("enhanced", Text),
    Column("reply", Text),
    Column("relay_queue_id", Text),
    Column("address_hash", LargeBinary),
    _now("at"),
)

suppression = Table(
    "suppression",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("address_hash", LargeBinary, primary_key=True),
    Column("reason", Text, nullable=False),
    _now("created_at"),
    Column("expires_at", _WHEN),
)

usage = Table(
    "usage",
    metadata,
    Column("relay", Text, primary_key=True),
    Column("bucket", _WHEN, primary_key=True),
    Column("range", BigInteger, primary_key=True, autoincrement=False),
    Column("n", Integer, nullable=False),
    postgresql_with={"fillfactor": 50},
)

report = Table(
    "report",
    metadata,
    _run(primary=True),
    Column("reporter", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    _now("at"),
)

relay = Table(
    "relay",
    metadata,
    Column("namespace", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("body", JSONB, nullable=False),
    _now("updated_at"),
)

relay_version = Sequence("relay_version", metadata=metadata)
"""Rises with each change of any relay: relays that share an account never have the same version."""

preflight = Table(
    "preflight",
    metadata,
    Column("namespace", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("made_for", Text, nullable=False),
    Column("reporter", Text, nullable=False),
    Column("fault", Text),
    Column("message", Text, nullable=False),
    Column("capabilities", ARRAY(Text), nullable=False),
    _now("at"),
)

installation = Table(
    "installation",
    metadata,
    Column("one", Boolean, primary_key=True, server_default=text("true")),
    Column("address_key", LargeBinary, nullable=False),
)
