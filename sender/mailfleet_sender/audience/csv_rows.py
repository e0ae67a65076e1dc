"""The rows of a CSV file as the ledger holds them, described as if they were a table of text columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.errors import AudienceUnavailable, PlanError
from mailfleet_sender.ledger.tables import csv_load, csv_row, run

from .table import Column, Described, check_match, no_column

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from mailfleet_sender.contract.campaign import Csv

LINE = ""
"""The name of the key where the file gives none: a header's names are never empty."""
WHERE = "recipients.csv"
_DOUBLED = sa.text("""
SELECT min(line), (array_agg(line ORDER BY line))[2] FROM csv_row
WHERE run = :run AND plan = :plan AND key IS NOT NULL GROUP BY key HAVING count(*) > 1 ORDER BY 1 LIMIT 3
""")


@dataclass(frozen=True, slots=True)
class CsvRows:
    """Where the rows of a run's file are.

    Attributes:
        plan: the number they were loaded under; None: that of the published plan.
    """

    csv: Csv
    run: int
    plan: int | None = None


class Forgotten(AudienceUnavailable):
    """The rows went, as all that names persons goes a day after the end of a run."""


def check_columns(csv: Csv, columns: Sequence[str], used: Collection[str]) -> None:
    """See that a header has what the campaign names, before anything is loaded.

    Raises:
        AudienceUnavailable: ColumnNotFound, with the columns that are there.
    """
    named = [
        (csv.email_column, f"{WHERE}.emailColumn"),
        *([(csv.key_column, f"{WHERE}.keyColumn")] if csv.key_column is not None else []),
        *((m.column, f"{WHERE}.match") for m in csv.match),
        *((name, "message") for name in sorted(used)),
    ]
    for name, where in named:
        if name not in columns:
            if len(columns) == 1 and (";" in columns[0] or "\t" in columns[0]):
                raise PlanError(
                    ReportReason.CSV_INVALID,
                    f"{WHERE}: the first line is one column {columns[0][:80]!r}: separate the columns by commas",
                )
            raise AudienceUnavailable(ReportReason.COLUMN_NOT_FOUND, no_column(name, where, "the file", columns))


def describe(connection: sa.Connection, source: CsvRows, used: Collection[str]) -> Described:
    """Read the header that was loaded.

    Raises:
        AudienceUnavailable: ColumnNotFound, MatchInvalid.
        Forgotten: the rows are gone.
    """
    csv = source.csv
    found = connection.execute(
        sa.select(csv_load.c.plan, csv_load.c["columns"], csv_load.c.keyed)
        .join(run, run.c.id == csv_load.c.run)
        .where(
            csv_load.c.run == source.run,
            csv_load.c.plan == (run.c.plan_id if source.plan is None else source.plan),
        )
    ).one_or_none()
    if found is None:
        raise Forgotten(ReportReason.SOURCE_UNAVAILABLE, f"{WHERE}: the rows of the file are gone: the run is over")
    names: Sequence[str] = found[1]
    check_columns(csv, names, used)
    key = csv.key_column if found.keyed and csv.key_column is not None else LINE
    wanted = sorted({key, csv.email_column, *(m.column for m in csv.match), *used})
    labels = {name: f"c{n}" for n, name in enumerate(wanted)}
    chosen = [_value(name, names, key).label(labels[name]) for name in wanted]
    rows = sa.select(*chosen).where(csv_row.c.run == source.run, csv_row.c.plan == found.plan).subquery("recipients")
    columns = {name: Column(name, "text", "pg_catalog.text", "text", name == key, name == key) for name in wanted}
    if key == LINE:
        columns[LINE] = Column(LINE, "int8", "pg_catalog.int8", "bigint", not_null=True, is_unique=True)
    described = Described(rows, columns[key], columns[csv.email_column], columns, keys_are_sound=True, labels=labels)
    for match in csv.match:
        check_match(connection, described, match)
    return described


def check_keys(connection: sa.Connection, source: CsvRows) -> None:
    """Keys that a column of the file gives must differ.

    Raises:
        PlanError: KeyNotUnique, with the lines of the first that do not.
    """
    if source.csv.key_column is None:
        return
    connection.execute(sa.text("SELECT set_config('statement_timeout', '0', true)"))
    doubled = connection.execute(_DOUBLED, {"run": source.run, "plan": source.plan}).all()
    if doubled:
        lines = "; ".join(f"lines {first} and {second}" for first, second in doubled)
        raise PlanError(
            ReportReason.KEY_NOT_UNIQUE,
            f"{WHERE}.keyColumn: rows have the same key in {source.csv.key_column!r}: {lines}. Each recipient needs a "
            "key of its own: mend them, or leave keyColumn out, and line numbers are the keys",
        )


def _value(name: str, names: Sequence[str], key: str) -> sa.ColumnElement[object]:
    """One column of a row; an empty field is NULL, as it says nothing."""
    if name == LINE:
        return csv_row.c.line
    if name == key:
        return csv_row.c.key
    return sa.func.nullif(csv_row.c.fields[names.index(name) + 1], "", type_=sa.Text)
