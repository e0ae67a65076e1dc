"""A run's books, checked against each other in plain SQL: no class of the ledger is trusted here.

Use `check_books(url, run)` after (or during) any test that sends; `sample` only checks the sum, and is
cheap enough to be asked all the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg2

if TYPE_CHECKING:
    from collections.abc import Iterable

TERMS = ("sent", "failed", "suppressed", "skipped", "uncertain", "cancelled", "deferred", "remaining")

_RANGES = """
SELECT r.id, r.planned, r.state, r.from_verdict, r.pos,
    coalesce((SELECT sum(upper(x) - lower(x)) FROM unnest(r.open) x), 0) AS open,
    coalesce((SELECT sum(upper(x) - lower(x)) FROM unnest(r.returned) x), 0) AS returned,
    coalesce((SELECT sum(upper(x) - lower(x)) FROM unnest(r.resend) x), 0)
      + coalesce((SELECT sum(upper(x) - lower(x)) FROM unnest(r.resending) x), 0) AS again,
    r.sent, r.failed, r.suppressed, r.skipped, r.uncertain, r.cancelled, r.deferred,
    (SELECT count(*) FROM doubt d WHERE d.range = r.id) AS doubts
FROM range r WHERE r.run = %(run)s ORDER BY r.id
"""

_VERDICTS = """
SELECT range, outcome, count(*) FROM (
    SELECT DISTINCT ON (range, pos) range, pos, outcome FROM delivery WHERE run = %(run)s ORDER BY range, pos, id DESC
) v GROUP BY range, outcome
"""

# Where each key of the published plan stands: in its youngest range, by that range's own rows.
_KEYS = """
WITH places AS (
    SELECT k.key, r.id AS range, r.state, ((g.number - r.first_page) * 500 + k.i - 1)::int AS pos,
        r.pos AS cursor, r.open, r.returned
    FROM range r
    JOIN page g ON g.run = r.run AND g.plan = r.plan AND g.wave = r.page_wave
        AND g.number BETWEEN r.first_page AND r.first_page + (r.planned - 1) / 500
    CROSS JOIN LATERAL unnest(g.keys) WITH ORDINALITY AS k(key, i)
    WHERE r.run = %(run)s
), latest AS (SELECT DISTINCT ON (key) * FROM places ORDER BY key, range DESC),
verdicts AS (
    SELECT DISTINCT ON (range, pos) range, pos, outcome FROM delivery WHERE run = %(run)s ORDER BY range, pos, id DESC
)
SELECT l.key, CASE
        WHEN v.outcome = 'deferred' AND u.state IN ('Cancelled', 'Failed', 'Superseded')
             AND NOT EXISTS (SELECT 1 FROM deferral d WHERE d.range = l.range AND d.pos = l.pos) THEN 'cancelled'
        WHEN v.outcome IS NOT NULL THEN v.outcome
        WHEN l.state = 'Closed' THEN 'cancelled'
        WHEN l.state = 'Open' AND (l.pos >= l.cursor OR l.open @> l.pos OR l.returned @> l.pos)
            THEN CASE WHEN r.from_verdict IS NULL THEN 'remaining' ELSE r.from_verdict END
        ELSE 'nowhere' END AS verdict
FROM latest l JOIN range r ON r.id = l.range JOIN run u ON u.id = r.run
LEFT JOIN verdicts v ON v.range = l.range AND v.pos = l.pos
UNION ALL
SELECT k.key, 'skipped'
FROM page g JOIN run u ON u.id = g.run AND u.plan_id = g.plan CROSS JOIN LATERAL unnest(g.keys) k(key)
WHERE g.run = %(run)s AND g.wave = -1
"""


@dataclass(frozen=True)
class Books:
    """What was found.

    Attributes:
        totals: planned and the eight terms.
        verdicts: every key of the published plan with its one verdict (empty before the start).
    """

    totals: dict[str, int]
    verdicts: dict[str, str] = field(repr=False)

    def keys(self, verdict: str) -> set[str]:
        """The keys with this verdict."""
        return {k for k, v in self.verdicts.items() if v == verdict}


class BooksError(AssertionError):
    """The books contradict themselves."""


def _rows(connection: Any, query: str, run: int) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(query, {"run": run})
        names = [c.name for c in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _totals(row: dict[str, Any], ranges: Iterable[dict[str, Any]]) -> dict[str, int]:
    """The sum from the run's folded counters and its Open ranges, added up here."""
    totals = {term: int(row.get(term, 0)) for term in TERMS}
    totals["remaining"] = int(row["planned"] - row["skipped"]) if row["state"] in {"Planning", "Planned"} else 0
    for r in ranges:
        if r["state"] != "Open":
            continue
        decided = r["pos"] - r["open"] - r["returned"]
        for term in TERMS[:-1]:
            totals[term] += r[term]
        if r["from_verdict"] is None:
            totals["remaining"] += r["planned"] - decided
        else:
            totals[r["from_verdict"]] -= decided
    return {"planned": int(row["planned"]), **{k: int(v) for k, v in totals.items()}}


def _check_sum(totals: dict[str, int]) -> None:
    if totals["planned"] != sum(totals[t] for t in TERMS) or min(totals.values()) < 0:
        raise BooksError(f"the sum does not hold: {totals}")


def _check_range(r: dict[str, Any], verdicts: dict[str, int]) -> None:
    counted = {t: r[t] for t in TERMS[:-1] if t != "cancelled" and r[t]}
    if counted != {k: n for k, n in verdicts.items() if n}:
        raise BooksError(f"range {r['id']} counts {counted}, its verdicts are {verdicts}")
    if r["uncertain"] != r["doubts"] + r["again"]:
        raise BooksError(f"range {r['id']}: uncertain {r['uncertain']}, doubt {r['doubts']}, to re-send {r['again']}")
    gone = r["planned"] - r["pos"] + r["returned"] if r["state"] == "Closed" else 0
    if r["cancelled"] != gone:
        raise BooksError(f"range {r['id']}: cancelled {r['cancelled']}, never claimed {gone}")
    left = r["planned"] - r["pos"] + r["open"] + r["returned"] if r["state"] == "Open" else 0
    if r["planned"] != sum(r[t] for t in TERMS[:-1]) + left:
        raise BooksError(f"range {r['id']} does not add up: {r}")


def _snapshot(url: str) -> Any:
    connection = psycopg2.connect(url)
    connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
    return connection


def sample(url: str, run: int) -> dict[str, int]:
    """The run's sum, in one snapshot.

    Raises:
        BooksError: planned is not the sum of the eight terms, or one is below 0.
    """
    connection = _snapshot(url)
    try:
        (row,) = _rows(connection, "SELECT * FROM run WHERE id = %(run)s", run)
        totals = _totals(row, _rows(connection, _RANGES, run))
    finally:
        connection.close()
    _check_sum(totals)
    return totals


def check_books(url: str, run: int) -> Books:
    """Everything that must hold at any moment, in one snapshot.

    The sum of the run and of each range; each range's counters = its verdicts grouped by outcome; uncertain =
    named doubts + waiting re-sends; cancelled = never claimed; every key of the plan has exactly one verdict,
    and these, counted, are the totals; deferred keys = rows of deferral + what a Retry wave has of them.

    Raises:
        BooksError: one of them does not hold.
    """
    connection = _snapshot(url)
    try:
        (row,) = _rows(connection, "SELECT * FROM run WHERE id = %(run)s", run)
        ranges = _rows(connection, _RANGES, run)
        grouped: dict[int, dict[str, int]] = {}
        for v in _rows(connection, _VERDICTS, run):
            grouped.setdefault(v["range"], {})[v["outcome"]] = v["count"]
        keys = _rows(connection, _KEYS, run)
        waiting = {d["key"] for d in _rows(connection, "SELECT key FROM deferral WHERE run = %(run)s", run)}
    finally:
        connection.close()
    totals = _totals(row, ranges)
    _check_sum(totals)
    for r in ranges:
        _check_range(r, grouped.get(r["id"], {}))
    if not ranges and row["started_at"] is None:
        return Books(totals, {})
    verdicts = {k["key"]: k["verdict"] for k in keys}
    if len(verdicts) != len(keys) or len(keys) != totals["planned"]:
        raise BooksError(f"{len(keys)} verdicts of {len(verdicts)} keys, {totals['planned']} planned")
    counted = {term: sum(v == term for v in verdicts.values()) for term in TERMS}
    if counted != {t: totals[t] for t in TERMS}:
        raise BooksError(f"verdicts by key {counted}, totals {totals}")
    if not waiting <= {k for k, v in verdicts.items() if v == "deferred"}:
        raise BooksError(f"{len(waiting)} deferrals, some of which are not deferred")
    return Books(totals, verdicts)
