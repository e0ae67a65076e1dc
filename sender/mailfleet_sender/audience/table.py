"""What the catalogue says about the campaign's table: that it exists, its columns, the type of its key."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.types import UserDefinedType

from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.contract.campaign import MatchOperator
from mailfleet_sender.errors import AudienceUnavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mailfleet_sender.contract.campaign import AddressTable, Match, Table

KEY_TYPES = {
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "uuid": "uuid",
    "varchar": "varchar",
    "text": "text",
}
"""Types a key column may have: pg_type.typname and the name that people use."""
TEXT_TYPES = frozenset({"text", "varchar", "bpchar", "name"})
"""Read as they are, as text."""
FIXED_TYPES = frozenset({"bool", "int2", "int4", "int8", "float4", "float8", "date", "timestamp", "timestamptz"})
"""Read as they are, as Python's own types, and never large."""
JSON_TYPES = frozenset({"json", "jsonb"})
PARSED_TYPES = JSON_TYPES | {"numeric"}
"""Read as text, then parsed."""

_TABLE = sa.text("""
    SELECT c.oid, c.relkind, c.relhassubclass,
           has_schema_privilege(n.oid, 'USAGE') AS usage
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relname = :name AND c.relkind IN ('r', 'v', 'm', 'p', 'f')
""")
_COLUMNS = sa.text("""
    SELECT a.attname AS name, b.typname AS kind, a.attnotnull AS not_null,
           format_type(a.atttypid, NULL) AS type_name,
           quote_ident(bn.nspname) || '.' || quote_ident(b.typname) AS base,
           has_column_privilege(a.attrelid, a.attnum, 'SELECT') AS readable,
           EXISTS (SELECT 1 FROM pg_catalog.pg_index i
                   WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                     AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum) AS is_unique
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
    JOIN pg_catalog.pg_namespace bn ON bn.oid = b.typnamespace
    WHERE a.attrelid = :oid AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
""")


class Named(UserDefinedType[Any]):
    """A type of the server by its quoted name, without a length: a cast to varchar(3) would cut the value."""

    cache_ok = True

    def __init__(self, name: str, *, array: bool = False) -> None:
        self.name, self.array = name, array

    def get_col_spec(self, **_: object) -> str:
        return self.name.replace("%", "%%") + ("[]" if self.array else "")


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the catalogue has it.

    Attributes:
        kind: pg_type.typname, that of the base type for a domain.
        base: the quoted name of that type, for casts.
        type_name: as people write it.
        not_null: by a constraint (never known of a view).
        is_unique: by a whole, valid unique index on it alone.
    """

    name: str
    kind: str
    base: str
    type_name: str
    not_null: bool
    is_unique: bool


@dataclass(frozen=True, slots=True)
class Described:
    """The table with the columns that the campaign uses.

    Attributes:
        keys_are_sound: the catalogue itself promises keys that are unique and never NULL.
        labels: what the source calls a column, if not by its name.
    """

    source: sa.FromClause
    key: Column
    email: Column
    columns: Mapping[str, Column]
    keys_are_sound: bool
    labels: Mapping[str, str] = field(default_factory=dict)

    def column(self, name: str) -> sa.ColumnElement[Any]:
        """The quoted column."""
        column: sa.ColumnElement[Any] = self.source.c[self.labels.get(name, name)]
        return column


def describe(connection: sa.Connection, table: Table, used: Collection[str]) -> Described:
    """Read the catalogue.

    Args:
        used: columns of the templates, beside those that `table` itself names.

    Raises:
        AudienceUnavailable: TableNotFound, ColumnNotFound, KeyTypeUnsupported, MatchInvalid, DatabaseRefused.
    """
    named = _named(table, used)
    found, columns = _catalogue(connection, table, named, "recipients.table")
    key = columns[table.key_column]
    if key.kind not in KEY_TYPES:
        raise AudienceUnavailable(
            ReportReason.KEY_TYPE_UNSUPPORTED,
            f"the key column {key.name!r} has type {key.type_name}: a key is {', '.join(KEY_TYPES.values())}; name "
            "another keyColumn, or a view that casts it",
        )
    source = _source(table, {name for name, _ in named})
    sound = key.not_null and key.is_unique and found.relkind in {"r", "p", "m"} and not (
        # An inheritance parent's index does not cover its children; a partitioned table's does.
        found.relkind == "r" and found.relhassubclass
    )  # fmt: skip
    described = Described(source, key, columns[table.email_column], columns, sound)
    for match in table.match:
        check_match(connection, described, match)
    return described


def describe_exclusion(connection: sa.Connection, table: AddressTable, path: str) -> sa.ColumnClause[Any]:
    """Read the catalogue about a table of addresses that get no mail.

    Args:
        path: the table's place in the manifest, for messages.

    Returns:
        the quoted column with the addresses; its `table` is the source.

    Raises:
        AudienceUnavailable: TableNotFound, ColumnNotFound, DatabaseRefused.
    """
    _catalogue(connection, table, [(table.email_column, f"{path}.emailColumn")], path)
    column: sa.ColumnClause[Any] = _source(table, {table.email_column}).c[table.email_column]
    return column


def _catalogue(
    connection: sa.Connection, table: Table | AddressTable, named: list[tuple[str, str]], path: str
) -> tuple[sa.Row[Any], dict[str, Column]]:
    """The table's row of the catalogue and all its columns, once those `named` are known to be there and readable."""
    found = connection.execute(_TABLE, {"schema": table.schema_, "name": table.name}).one_or_none()
    if found is None:
        raise AudienceUnavailable(ReportReason.TABLE_NOT_FOUND, _no_table(connection, table, path))
    rows = connection.execute(_COLUMNS, {"oid": found.oid}).all()
    columns = {r.name: Column(r.name, r.kind, r.base, r.type_name, bool(r.not_null), bool(r.is_unique)) for r in rows}
    for name, where in named:
        if name not in columns:
            what = f"{table.schema_}.{table.name}"
            raise AudienceUnavailable(ReportReason.COLUMN_NOT_FOUND, no_column(name, where, what, columns))
    needed = {name for name, _ in named}
    barred = [r.name for r in rows if r.name in needed and not r.readable]
    if barred or not found.usage:
        what = f"the column {barred[0]!r} of " if barred else ""
        raise AudienceUnavailable(
            ReportReason.DATABASE_REFUSED,
            f"the database role may not read {what}{table.schema_}.{table.name}: GRANT USAGE on the schema and SELECT "
            "on the table to the role of the URL",
        )
    return found, columns


def _source(table: Table | AddressTable, needed: Collection[str]) -> sa.TableClause:
    return sa.table(
        sa.quoted_name(table.name, quote=True),
        *(sa.column(sa.quoted_name(name, quote=True)) for name in sorted(needed)),
        schema=sa.quoted_name(table.schema_, quote=True),
    )


def condition(described: Described, match: Match) -> sa.ColumnElement[bool]:
    """One structured filter as SQL. A NULL meets none but IsNull, as everywhere in SQL."""
    column, kind = described.column(match.column), Named(described.columns[match.column].base)
    if match.operator is MatchOperator.IS_NULL:
        return column.is_(None)
    if match.operator is MatchOperator.IS_NOT_NULL:
        return column.is_not(None)
    values = [sa.cast(sa.literal(v, sa.Text), kind) for v in match.values]
    match match.operator:
        case MatchOperator.EQUALS:
            return column == values[0]
        case MatchOperator.NOT_EQUALS:
            return column != values[0]
        case MatchOperator.IN:
            return column.in_(values)
        case _:
            return column.not_in(values)


def check_match(connection: sa.Connection, described: Described, match: Match) -> None:
    """See that a filter can be asked of its column.

    Raises:
        AudienceUnavailable: MatchInvalid.
    """
    column = described.columns[match.column]
    takes_one = match.operator in {MatchOperator.EQUALS, MatchOperator.NOT_EQUALS}
    takes_none = match.operator in {MatchOperator.IS_NULL, MatchOperator.IS_NOT_NULL}
    count = len(match.values)
    if (takes_one and count != 1) or (takes_none and count) or (not takes_one and not takes_none and not count):
        wants = "exactly one value" if takes_one else "no values" if takes_none else "at least one value"
        raise AudienceUnavailable(
            ReportReason.MATCH_INVALID, f"match on {match.column!r}: {match.operator} takes {wants}, it has {count}"
        )
    probe = sa.select(sa.literal(1)).select_from(described.source).where(condition(described, match)).limit(0)
    try:
        with connection.begin_nested():
            # The planner folds the casts of constants, so a value that is none of the type fails here.
            for value in match.values:
                connection.execute(sa.select(sa.cast(sa.literal(value, sa.Text), Named(column.base))))
            connection.execute(probe)
    except (sa.exc.DataError, sa.exc.ProgrammingError, sa.exc.NotSupportedError) as error:
        if (getattr(error.orig, "pgcode", None) or "") == "42501":
            raise
        raise AudienceUnavailable(
            ReportReason.MATCH_INVALID,
            f"match on {match.column!r}: a value cannot be compared with the column's type {column.type_name}; "
            "write it as that type's text form",
        ) from None
    except ValueError:
        raise AudienceUnavailable(
            ReportReason.MATCH_INVALID, f"match on {match.column!r}: a value holds a NUL character"
        ) from None


def _named(table: Table, used: Collection[str]) -> list[tuple[str, str]]:
    return [
        (table.key_column, "recipients.table.keyColumn"),
        (table.email_column, "recipients.table.emailColumn"),
        *((m.column, "recipients.table.match") for m in table.match),
        *((name, "message") for name in sorted(used)),
    ]


def _no_table(connection: sa.Connection, table: Table | AddressTable, path: str) -> str:
    names = list(
        connection.execute(
            sa.text(
                "SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
                "WHERE n.nspname = :schema AND c.relkind IN ('r', 'v', 'm', 'p', 'f') ORDER BY 1 LIMIT 1000"
            ),
            {"schema": table.schema_},
        ).scalars()
    )
    close = difflib.get_close_matches(table.name, names, n=3, cutoff=0.5)
    hint = f"; did you mean {', '.join(close)}?" if close else ": check schema and name (case counts)"
    return f"{path}: there is no table or view {table.schema_}.{table.name} in the recipients' database{hint}"


def no_column(name: str, where: str, what: str, columns: Collection[str]) -> str:
    """The words for a column that is named and is not there.

    Args:
        where: the field that names it.
        what: what has it not.
        columns: the names of those that are there.
    """
    close = difflib.get_close_matches(name, columns, n=1, cutoff=0.6)
    hint = f" Did you mean {close[0]}?" if close else ""
    text = f"{where} names the column {name!r}, which {what} has not.{hint} Columns: "
    return text + _listed(columns, room=256 - len(text.encode()))


def _listed(names: Collection[str], *, room: int) -> str:
    """Names separated by commas, as many as fit into `room` octets."""
    out = ""
    for n, name in enumerate(names):
        piece = f"{', ' if n else ''}{name}"
        if len((out + piece).encode()) > room - 5:
            return f"{out}, ..."
        out += piece
    return out
