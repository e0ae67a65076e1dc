"""The audience: checked and cut into pages once, then read page by page while it is being sent."""

from __future__ import annotations

import json
from contextlib import contextmanager
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.contract.campaign import DuplicateAddresses
from mailfleet_sender.errors import AudienceUnavailable, PlanError
from mailfleet_sender.ledger.values import KeyArray, PlannedPage
from mailfleet_sender.message.address import BLANKS
from mailfleet_sender.message.mail import LocalCode

from . import csv_rows, statement
from .connect import reading, sqlstate
from .csv_rows import CsvRows
from .row import Row, UnusableRow
from .table import FIXED_TYPES, JSON_TYPES, KEY_TYPES, PARSED_TYPES, TEXT_TYPES, Named, describe, describe_exclusion

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from mailfleet_sender.contract.campaign import CanaryStep, Exclusion, Table

    from .table import Column, Described

COLUMN_OCTETS = 1_048_576
"""The longest value of one column; a longer one makes its recipient `failed`/RowTooLarge."""
ROWS_SECONDS = 30
"""Limit of one page read. With an index on the key it takes milliseconds."""
IDLE_SECONDS = 600
"""How long the plan's cursor may wait for the ledger between two fetches."""
SAMPLED = 1_000
"""Of how many of the first rows, in key order, a sample is taken."""
TOP_DOMAINS = 5
"""How many of the most frequent domains a plan names."""
FETCHED_PAGES = 20
"""Pages a fetch: 10,000 keys are held at once."""

# What the server or the driver raises over a value: bytes that are no UTF-8 (22021, 22P05), a date without a
# counterpart in Python. The page is then read in halves until the row is alone.
_UNREADABLE = (sa.exc.DataError, ValueError, OverflowError, RecursionError)

# What `reading` says of a database that was named by the campaign.
_AWAY = frozenset({ReportReason.DATABASE_UNAVAILABLE, ReportReason.DATABASE_REFUSED})


class KeyType(StrEnum):
    """The type of a key column, by the name that people use."""

    SMALLINT = "smallint"
    INTEGER = "integer"
    BIGINT = "bigint"
    UUID = "uuid"
    VARCHAR = "varchar"
    TEXT = "text"


class Audience:
    """The rows of the recipients' database that one campaign means.

    Every method runs read-only transactions of its own; use it from one thread at a time.
    """

    def __init__(
        self,
        engine: sa.Engine,
        source: Table | CsvRows,
        columns: Collection[str],
        *,
        exclude: Sequence[Exclusion] = (),
        duplicate_addresses: DuplicateAddresses = DuplicateAddresses.SKIP,
        steps: Sequence[CanaryStep] = (),
    ) -> None:
        """Nothing is read yet.

        Args:
            engine: what `open_recipients` gave: the ledger's, if the source are rows of a file.
            source: the campaign's table, or the rows that its plan loaded.
            columns: those that the templates use (`Composer.columns`).
            exclude: whose addresses get no mail. Only the plan's methods read these tables, `rows` does not.
            steps: of a canary, which `pages` cuts the audience into.
        """
        self._engine, self._source, self._columns = engine, source, tuple(sorted(set(columns)))
        self._match = source.csv.match if isinstance(source, CsvRows) else source.match
        self._exclude, self._duplicates, self._steps = tuple(exclude), duplicate_addresses, tuple(steps)
        self._described: Described | None = None
        self._page_read: tuple[Described, sa.Select[Any], list[Column]] | None = None

    def check(self) -> KeyType:
        """Find out whether the campaign's table can be used.

        Returns:
            the type of the key column.

        Raises:
            PlanError: TableNotFound, ColumnNotFound, KeyTypeUnsupported, KeyNull, KeyNotUnique, MatchInvalid,
                DatabaseUnavailable, DatabaseRefused (all that waiting may mend as AudienceUnavailable).
        """
        with self._reading() as connection:
            self._described = None
            described = self._describe(connection)
            self._exclusions(connection)
            if isinstance(self._source, CsvRows):
                csv_rows.check_keys(connection, self._source)
            self._check_keys(connection, described)
        return KeyType(KEY_TYPES[described.key.kind])

    def pages(self) -> Iterator[PlannedPage]:
        """Cut the audience into pages: ONE statement, read through a server-side cursor in constant memory.

        Yields:
            first the pages to send in key order (each but the last with PAGE_SIZE keys, numbered from 0), those of
            the canary's steps behind the others, each step numbered for itself; then the pages of skipped keys,
            numbered from 0 over all reasons, one reason a page. All rows that meet `match` are in exactly one of
            them.

        Raises:
            PlanError: as `check`, and KeyNotUtf8 with the key's place.
        """
        skipped = 0
        try:
            with self._reading(repeatable=True) as connection:
                described = self._describe(connection)
                exclusions = self._exclusions(connection)
                self._check_keys(connection, described)
                connection.execute(
                    # cursor_tuple_fraction: the whole result is wanted, not its first tenth fast. jit: most of the time
                    # goes into sorting, and its few expressions do not repay their compilation.
                    sa.text(
                        "SELECT set_config('cursor_tuple_fraction', '1', true), set_config('jit', 'off', true), "
                        "set_config('statement_timeout', '0', true), "
                        f"set_config('idle_in_transaction_session_timeout', '{IDLE_SECONDS}s', true)"
                    )
                )
                result = connection.execution_options(stream_results=True, yield_per=FETCHED_PAGES).execute(
                    statement.plan(described, self._match, self._duplicates, exclusions, self._steps)
                )
                for verdict, step, number, literal, count in result:
                    keys = KeyArray(literal, count)
                    if (reason := statement.VERDICTS[verdict]) is None:
                        yield PlannedPage(number, keys, step=step)
                    else:
                        yield PlannedPage(skipped, keys, reason)
                        skipped += 1
        except sa.exc.DBAPIError as error:
            if sqlstate(error) in {"22021", "22P05"} and (place := self._undecodable_key()) is not None:
                raise place from None
            raise

    def rows(self, keys: Sequence[str]) -> dict[str, Row | UnusableRow]:
        """Read some recipients as they are now, `match` still applied.

        Args:
            keys: as the plan gave them, at most a page.

        Returns:
            by key. A key that is missing is gone: deleted, or no longer met by `match`; all of a file's rows are
            gone a day after the end of their run.

        Raises:
            AudienceUnavailable: the database, the table or a column cannot be read now.
        """
        if (described := self._described) is None:
            try:
                with self._reading() as connection:
                    described = self._describe(connection)
            except csv_rows.Forgotten:
                return {}
        try:
            return self._read(described, keys)
        except _UNREADABLE:
            if len(keys) == 1:
                detail = "the row cannot be read as UTF-8, or a value (such as a date after 9999) cannot be used"
                return {keys[0]: UnusableRow(keys[0], LocalCode.ROW_UNREADABLE, detail)}
            half = len(keys) // 2
            return {**self.rows(keys[:half]), **self.rows(keys[half:])}
        except sa.exc.ProgrammingError as error:
            # The table changed under us. Look again: `describe` knows the words for what is missing now.
            self._described = None
            with self._reading() as connection:
                self._describe(connection)
            raise _refused(error) from None
        except sa.exc.DBAPIError as error:
            raise _refused(error) from None

    def sample(self, count: int) -> list[Row | UnusableRow]:
        """Up to `count` recipients that would get mail, smallest keys first: to try the message on.

        They are among the first SAMPLED rows: to look for usable addresses further on could mean to judge them all.
        """
        with self._reading() as connection:
            described, exclusions = self._describe(connection), self._exclusions(connection)
            key = statement.ordered(described, described.column(described.key.name))
            a = statement.address(described.column(described.email.name))
            first = (
                sa.select(key.label("k"), a.label("a"))
                .where(*statement.matching(described, self._match))
                .order_by(key)
                .limit(SAMPLED)
                .subquery("first")
            )
            keys = connection.execute(
                sa.select(sa.cast(first.c.k, sa.Text))
                .where(statement.usable(first.c.a), *statement.not_excluded(first.c.a, exclusions))
                .order_by(first.c.k)
                .limit(count)
            ).scalars()
            chosen = list(keys)
        found = self.rows(chosen) if chosen else {}
        return [found[key] for key in chosen if key in found]

    def domains(self, keys: Sequence[str]) -> list[tuple[str, int]]:
        """The most frequent domains among these recipients, each with how many have it, the most first."""
        with self._reading() as connection:
            described = self._describe(connection)
            connection.execute(sa.text("SELECT set_config('statement_timeout', '0', true)"))
            a = statement.address(described.column(described.email.name))
            domain = sa.func.split_part(a, "@", 2, type_=sa.Text)
            count = sa.func.count()
            found = connection.execute(
                sa.select(domain, count)
                .where(self._among(described), statement.usable(a))
                .group_by(domain)
                .order_by(count.desc(), domain)
                .limit(TOP_DOMAINS),
                {"keys": list(keys)},
            ).all()
        return [(name, number) for name, number in found]

    def nulls(self, columns: Collection[str]) -> dict[str, int]:
        """In how many rows that would get mail each of these columns is NULL; columns without any are left out."""
        with self._reading() as connection:
            described = self._describe(connection)
            doubtful = [name for name in sorted(columns) if not described.columns[name].not_null]
            if not doubtful:
                return {}
            exclusions = self._exclusions(connection)
            connection.execute(sa.text("SELECT set_config('statement_timeout', '0', true)"))
            missing = [described.column(name).is_(None) for name in doubtful]
            a = statement.address(described.column(described.email.name))
            counts = connection.execute(
                sa.select(*map(_count_if, missing)).where(
                    *statement.matching(described, self._match),
                    sa.or_(*missing),  # said once more here, so that the other rows' addresses are not judged
                    statement.usable(a),
                    *statement.not_excluded(a, exclusions),
                )
            ).one()
        return {name: count for name, count in zip(doubtful, counts, strict=True) if count}

    def _describe(self, connection: sa.Connection) -> Described:
        if self._described is None:
            if isinstance(self._source, CsvRows):
                self._described = csv_rows.describe(connection, self._source, self._columns)
            else:
                self._described = describe(connection, self._source, self._columns)
        return self._described

    @contextmanager
    def _reading(self, *, repeatable: bool = False) -> Iterator[sa.Connection]:
        """`reading`, with words that fit where rows of a file are: in the ledger."""
        try:
            with reading(self._engine, repeatable=repeatable) as connection:
                yield connection
        except AudienceUnavailable as error:
            if isinstance(self._source, CsvRows) and error.reason in _AWAY:
                message = "the rows of recipients.csv are in the ledger, which does not answer or refuses to be read"
                raise AudienceUnavailable(ReportReason.DATABASE_UNAVAILABLE, message) from None
            raise

    def _exclusions(self, connection: sa.Connection) -> list[sa.ColumnClause[Any]]:
        return [
            describe_exclusion(connection, one.table, f"spec.recipients.exclude[{n}].table")
            for n, one in enumerate(self._exclude)
        ]

    def _check_keys(self, connection: sa.Connection, described: Described) -> None:
        """NULL and doubled keys, unless constraints already exclude them."""
        if described.keys_are_sound:
            return
        connection.execute(sa.text("SELECT set_config('statement_timeout', '0', true)"))
        key = described.column(described.key.name)
        total, nulls, distinct = connection.execute(
            sa.select(sa.func.count(), _count_if(key.is_(None)), sa.func.count(key.distinct())).where(
                *statement.matching(described, self._match)
            )
        ).one()
        name = described.key.name
        if nulls:
            raise PlanError(
                ReportReason.KEY_NULL,
                f"the key column {name!r} is NULL in {nulls} rows: fill them, exclude them with match (IsNotNull), or "
                "name another keyColumn",
            )
        if total != distinct:
            raise PlanError(
                ReportReason.KEY_NOT_UNIQUE,
                f"the key column {name!r} holds {total - distinct} doubled values: each recipient needs a key of its "
                "own; remove the doubles or name another keyColumn",
            )

    def _read(self, described: Described, keys: Sequence[str]) -> dict[str, Row | UnusableRow]:
        found: dict[str, Row | UnusableRow] = {}
        query, chosen = self._page(described)
        names, plain = [c.name for c in chosen], not any(c.kind in PARSED_TYPES for c in chosen)
        with self._reading() as connection:
            connection.execute(sa.text(f"SELECT set_config('statement_timeout', '{ROWS_SECONDS}s', true)"))
            for key, large, email, *values in connection.execute(query, {"keys": list(keys)}).all():
                if large:
                    name = described.email.name if large == 1 else chosen[large - 2].name
                    detail = f"the column {name!r} is longer than {COLUMN_OCTETS} octets"
                    found[key] = UnusableRow(key, LocalCode.ROW_TOO_LARGE, detail)
                else:
                    as_they_are = plain and None not in values
                    seen = dict(zip(names, values, strict=True)) if as_they_are else _values(chosen, values)
                    found[key] = Row(key, (email or "").strip(BLANKS), seen)
        return found

    def _page(self, described: Described) -> tuple[sa.Select[Any], list[Column]]:
        """The page read, made once: key, which column is too large (0: none), the address, the columns; and these."""
        if self._page_read is None or self._page_read[0] is not described:
            chosen = [described.columns[name] for name in self._columns]
            self._page_read = described, self._select(described, chosen), chosen
        return self._page_read[1:]

    def _select(self, described: Described, chosen: list[Column]) -> sa.Select[Any]:
        key = described.column(described.key.name)
        email = sa.cast(described.column(described.email.name), sa.Text)
        texts = [email, *(_readable(described, c) for c in chosen)]
        large: list[tuple[sa.ColumnElement[bool], sa.ColumnElement[Any]]] = [
            (sa.func.octet_length(text) > COLUMN_OCTETS, sa.literal_column(str(n)))
            for n, text in enumerate(texts, 1)
            if not isinstance(text, sa.ColumnClause)
        ]
        wanted = [
            text if isinstance(text, sa.ColumnClause) else sa.case((sa.func.octet_length(text) <= COLUMN_OCTETS, text))
            for text in texts
        ]
        return sa.select(
            sa.cast(key, sa.Text), sa.case(*large, else_=0), *(c.label(f"c{n}") for n, c in enumerate(wanted))
        ).where(self._among(described), *statement.matching(described, self._match))

    @staticmethod
    def _among(described: Described) -> sa.ColumnElement[bool]:
        """The key is one of those bound as `keys`."""
        keys = sa.cast(sa.bindparam("keys", type_=sa.ARRAY(sa.Text)), Named(described.key.base, array=True))
        return described.column(described.key.name) == sa.func.any(keys)

    def _undecodable_key(self) -> PlanError | None:
        """The first text key that is no UTF-8, by its place among the keys: a SQL_ASCII database may hold such."""
        with self._reading() as connection:
            described = self._describe(connection)
            if described.key.kind not in TEXT_TYPES:
                return None
            key = statement.ordered(described, described.column(described.key.name))
            octets = sa.func.convert_to(sa.cast(key, sa.Text), sa.func.getdatabaseencoding())
            result = connection.execution_options(stream_results=True, yield_per=10_000).execute(
                sa.select(octets).where(*statement.matching(described, self._match)).order_by(key)
            )
            for position, raw in enumerate(result.scalars()):
                try:
                    bytes(raw).decode()
                except UnicodeDecodeError as error:
                    return PlanError(
                        ReportReason.KEY_NOT_UTF8,
                        f"the key column {described.key.name!r} holds a key that is not UTF-8: number {position + 1} "
                        f"in order of octets, at its octet {error.start + 1}; correct it or exclude it with match",
                    )
        return None


def _refused(error: sa.exc.DBAPIError) -> AudienceUnavailable:
    return AudienceUnavailable(
        ReportReason.DATABASE_REFUSED,
        f"the recipients' database refuses to read the table (SQLSTATE {sqlstate(error)}): try a SELECT with its role",
    )


def _count_if(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.count().filter(condition)


def _readable(described: Described, column: Column) -> sa.ColumnElement[Any]:
    """Types that Python has are read as such, every other one (uuid, enum, bytea, array) in its text form."""
    if column.kind in FIXED_TYPES:
        return described.column(column.name)
    return sa.cast(described.column(column.name), sa.Text)


def _values(columns: list[Column], values: list[Any]) -> dict[str, object]:
    """What the templates see; NULL is left out, so that it is undefined there."""
    seen: dict[str, object] = {}
    for column, value in zip(columns, values, strict=True):
        if value is None:
            continue
        if column.kind in JSON_TYPES:
            if (parsed := json.loads(value)) is not None:
                seen[column.name] = parsed
        elif column.kind == "numeric":
            seen[column.name] = Decimal(value)
        else:
            seen[column.name] = value
    return seen
