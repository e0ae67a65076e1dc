"""A run's audience, the same for planner, senders and people: its table, or the rows that its plan took from a file."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from .audience import Audience, CsvFile, CsvRows, check_columns, open_recipients, opened
from .contract import environment
from .contract.accounts import ReportReason
from .errors import PlanError, SettingsError
from .ledger import begin_load, load_rows

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Sequence
    from pathlib import Path

    import sqlalchemy as sa

    from .contract.campaign import CanaryStep, Csv, Recipients
    from .ledger import Plan
    from .settings import Network


def audience_of(
    recipients: Recipients,
    columns: Collection[str],
    *,
    run: int,
    plan: int | None = None,
    steps: Sequence[CanaryStep] = (),
    database_url: str | None,
    ledger_url: str,
    application_name: str,
) -> Audience:
    """What a run's recipients are read through.

    Args:
        recipients: of the campaign.
        columns: those that the templates use.
        run: its id; `plan`: the number of a plan that is being made, None: the published one.
        steps: of a canary, into which a plan is cut.
        database_url: of the recipients' database, where they are a table.
        ledger_url: where the rows of a file are.
        application_name: as `open_recipients` takes it.

    Raises:
        SettingsError: the URL that is needed is not given.
        AudienceUnavailable: the URL cannot be read.
    """
    if recipients.csv:
        source: CsvRows = CsvRows(recipients.csv, run, plan)
        engine = open_recipients(ledger_url, application_name=application_name)
        return Audience(engine, source, columns, duplicate_addresses=recipients.duplicate_addresses, steps=steps)
    if not database_url:
        raise SettingsError(f"{environment.DATABASE_URL} is not set: the recipients are a table")
    if recipients.table is None:
        raise PlanError(ReportReason.SOURCE_REFUSED, "recipients: name one of table and csv")
    return Audience(
        open_recipients(database_url, application_name=application_name),
        recipients.table,
        columns,
        exclude=recipients.exclude,
        duplicate_addresses=recipients.duplicate_addresses,
        steps=steps,
    )


def load(
    ledger: sa.Engine,
    plan: Plan,
    csv: Csv,
    columns: Collection[str],
    *,
    config_folder: Path,
    volume_folder: Path,
    networks: Sequence[Network],
) -> int:
    """Bring a file's rows into the ledger, under the number of a plan that is being made.

    Args:
        columns: those that the templates use: missed before anything is loaded.

    Returns:
        how many rows.

    Raises:
        PlanError: the file cannot be had, or cannot be used; with the lines.
        LedgerUnavailable, PlanSuperseded: as `load_rows`.
    """
    with opened(csv, config_folder=config_folder, volume_folder=volume_folder, networks=networks) as lines:
        file = CsvFile(lines)
        check_columns(csv, file.columns, columns)
        key = file.columns.index(csv.key_column) if csv.key_column is not None else None
        email = file.columns.index(csv.email_column)
        begin_load(ledger, plan, file.columns, email=email, keyed=key is not None)
        with closing(_keyed(file, key)) as rows:
            return load_rows(ledger, plan, rows)


def _keyed(file: CsvFile, key: int | None) -> Generator[tuple[int, str | None, Sequence[str]], None, None]:
    for row in file.rows():
        if key is None:
            yield row.line, None, row.fields
        elif row.fields[key]:
            yield row.line, row.fields[key], row.fields
        else:
            raise PlanError(
                ReportReason.KEY_NULL,
                f"recipients.csv.keyColumn: line {row.line} has nothing in {file.columns[key]!r}: fill it in, or leave "
                "keyColumn out, and line numbers are the keys",
            )
