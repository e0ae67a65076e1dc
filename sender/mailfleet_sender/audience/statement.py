"""The plan's one statement: every row of the audience with the reason to skip it, numbered and paged in the server.

The server sorts twice: by address for duplicates, by key for the pages. What leaves it is one row a page, so
neither the planner's memory nor the wire grows with what a row holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by

from mailfleet_sender.contract.campaign import DuplicateAddresses
from mailfleet_sender.ledger.values import PAGE_SIZE
from mailfleet_sender.message.address import ADDRESS_OCTETS, BLANKS, LOCAL_OCTETS, LONG_LABEL, PATTERN, SHORT

from .row import SkipReason
from .steps import cut
from .table import TEXT_TYPES, condition

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from mailfleet_sender.contract.campaign import CanaryStep, Match

    from .table import Described

    Columns: TypeAlias = Sequence[sa.ColumnClause[Any]]

VERDICTS: tuple[SkipReason | None, ...] = (
    None,
    SkipReason.NO_ADDRESS,
    SkipReason.INVALID_ADDRESS,
    SkipReason.ADDRESS_NOT_ASCII,
    SkipReason.EXCLUDED,
    SkipReason.DUPLICATE_ADDRESS,
)
"""What the statement's small integers mean: sorting a million integers is cheaper than sorting their names."""
_FLAGS = {"barred": SkipReason.EXCLUDED, "again": SkipReason.DUPLICATE_ADDRESS}


def address(column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    """The stored address in small letters and without blanks around it: what is judged and compared.

    By octets, not by the database's collation: only usable addresses are compared in the end, and these are ASCII.
    """
    stored = sa.cast(column, sa.Text).collate("C")
    return sa.func.lower(sa.func.btrim(stored, sa.literal(BLANKS, sa.Text)), type_=sa.Text)


def usable(text: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """`message.address.is_address`, in SQL, of what `address` gives; tests hold the two against each other."""
    return sa.and_(
        sa.func.octet_length(text) <= ADDRESS_OCTETS,
        sa.func.strpos(text, "@") <= LOCAL_OCTETS + 1,
        text.op("~", is_comparison=True)(f"^{PATTERN}$"),
        sa.or_(sa.func.octet_length(text) < SHORT, text.op("!~", is_comparison=True)(LONG_LABEL)),
    )


def matching(described: Described, matches: Sequence[Match]) -> list[sa.ColumnElement[bool]]:
    """The conditions of `match`."""
    return [condition(described, m) for m in matches]


def ordered(described: Described, key: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The key as it is sorted by: text by octets, so that the smallest key is the same in every locale."""
    return key.collate("C") if described.key.kind in TEXT_TYPES else key


def excluded(columns: Columns) -> sa.Select[Any]:
    """The addresses in these columns, each once. What is no address excludes nobody."""
    found = sa.union_all(*(sa.select(address(column).label("a")) for column in columns)).subquery("found")
    # A view may hold anything, and the server's hash table of it should stay small.
    return sa.select(found.c.a).where(sa.func.octet_length(found.c.a) <= ADDRESS_OCTETS).distinct()


def not_excluded(text: sa.ColumnElement[Any], columns: Columns) -> list[sa.ColumnElement[bool]]:
    """The condition that an address, as `address` gives it, is in none of these columns; none if there are none."""
    if not columns:
        return []
    barred = excluded(columns).subquery("barred")
    return [~sa.exists().where(barred.c.a == text)]


def plan(
    described: Described,
    matches: Sequence[Match],
    duplicates: DuplicateAddresses,
    exclusions: Columns = (),
    steps: Sequence[CanaryStep] = (),
) -> sa.Select[Any]:
    """The statement: rows of (verdict, step, number, keys as text, their count), first the pages to send after the
    canary's steps, in key order.

    Args:
        exclusions: columns whose addresses get no mail.
        steps: of a canary: those to send are cut into them and the rest, step 0.
    """
    verdicts = _verdicts(described, matches, duplicates, exclusions)
    columns = [
        verdicts.c.k,
        verdicts.c.v,
        (sa.func.row_number().over(partition_by=verdicts.c.v, order_by=verdicts.c.k) - 1).label("n"),
    ]
    step: sa.ColumnElement[int] = sa.literal_column("0", sa.Integer)
    by = []
    if steps:
        columns.append(sa.func.count().over(partition_by=verdicts.c.v).label("total"))
        numbered = cut(sa.select(*columns).subquery("numbered"), steps, VERDICTS.index(None))
        by = [step := numbered.c.step]
    else:
        numbered = sa.select(*columns).subquery("numbered")
    page = numbered.c.n.op("/")(sa.literal(PAGE_SIZE)).label("page")
    keys = sa.func.array_agg(aggregate_order_by(sa.cast(numbered.c.k, sa.Text), numbered.c.n))
    return (
        sa.select(numbered.c.v, step, page, sa.cast(keys, sa.Text), sa.func.count())
        .group_by(numbered.c.v, *by, page)
        .order_by(numbered.c.v, *by, page)
    )


def _verdicts(
    described: Described, matches: Sequence[Match], duplicates: DuplicateAddresses, exclusions: Columns
) -> sa.Subquery:
    """Every row's key `k` with its verdict `v`, each address read, judged and compared once."""
    key = ordered(described, described.column(described.key.name))
    rows = (
        sa.select(key.label("k"), address(described.column(described.email.name)).label("a"))
        .where(*matching(described, matches))
        .offset(0)  # a fence: else the server would trim the address anew at each of its uses
        .subquery("rows")
    )
    source: sa.FromClause = rows
    flags: list[sa.ColumnElement[Any]] = []
    if exclusions:
        barred = excluded(exclusions).subquery("barred")
        source = rows.outerjoin(barred, barred.c.a == rows.c.a)
        flags.append(barred.c.a.is_not(None).label("barred"))
    if duplicates is DuplicateAddresses.SKIP:
        # Of equal addresses the smallest key keeps its mail.
        place = sa.func.row_number().over(partition_by=rows.c.a, order_by=rows.c.k)
        flags.append((place > 1).label("again"))
    ranked = sa.select(rows.c.k, rows.c.a, *flags).select_from(source).subquery("ranked")
    a = ranked.c.a
    unusable = sa.case(
        (a.op("~", is_comparison=True)("[^\\x01-\\x7F]"), _verdict(SkipReason.ADDRESS_NOT_ASCII)),
        else_=_verdict(SkipReason.INVALID_ADDRESS),
    )
    # In this order, so that the pattern runs once a row: a test on a verdict would run it anew.
    verdict = sa.case(
        (sa.or_(a.is_(None), a == ""), _verdict(SkipReason.NO_ADDRESS)),
        (sa.not_(usable(a)), unusable),
        *((ranked.c[flag.name], _verdict(_FLAGS[flag.name])) for flag in flags),
        else_=_verdict(None),
    )
    return sa.select(ranked.c.k, verdict.label("v")).subquery("verdicts")


def _verdict(reason: SkipReason | None) -> sa.ColumnElement[int]:
    return sa.literal_column(str(VERDICTS.index(reason)), sa.Integer)
