"""What the ledger says of runs: each question about many of them is one statement."""

# ruff: noqa: S608 - what is put into these statements is constants of this package, values are bound

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, text, tuple_

from mailfleet_sender.contract.accounts import Failure, Report, ReportReason, RunState, Totals, WaveKind
from mailfleet_sender.contract.campaign import OnUncertain
from mailfleet_sender.errors import LedgerUnavailable

from .connection import available, transaction
from .tables import COUNTERS, deferral, late_outcome, page, range_, report, run
from .values import SKIPPED_WAVE, Deferrals, RunRow, StepRow, Timing, WaveRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, Engine


def _term(counter: str) -> str:
    """run's counter + that of its Open ranges; a verdict loses what Open ranges made from it have decided."""
    lost = f" - coalesce(o.from_{counter}, 0)" if counter in {"deferred", "failed", "uncertain"} else ""
    return f"u.{counter} + coalesce(o.{counter}, 0){lost} AS {counter}"


# The sets of almost all ranges are empty: width() is called only where they are not.
_DECIDED = """
pos - CASE WHEN isempty(open) THEN 0 ELSE width(open) END
    - CASE WHEN isempty(returned) THEN 0 ELSE width(returned) END
"""

# One statement, one snapshot; each term is counted for itself, remaining from cursors and claims.
_TOTALS = text(f"""
SELECT u.id, u.planned, {", ".join(map(_term, COUNTERS))},
    CASE WHEN u.state IN ('Planning', 'Planned') THEN u.planned - u.skipped
         ELSE coalesce(o.remaining, 0) END AS remaining
FROM run u
LEFT JOIN (
    SELECT run, {", ".join(f"sum({c}) AS {c}" for c in COUNTERS)},
        sum(planned - decided) FILTER (WHERE from_verdict IS NULL) AS remaining,
        sum(decided) FILTER (WHERE from_verdict = 'deferred') AS from_deferred,
        sum(decided) FILTER (WHERE from_verdict = 'failed') AS from_failed,
        sum(decided) FILTER (WHERE from_verdict = 'uncertain') AS from_uncertain
    FROM (SELECT *, {_DECIDED} AS decided FROM range
          WHERE run = ANY(CAST(:runs AS bigint[])) AND state = 'Open') r
    GROUP BY run) o ON o.run = u.id
WHERE u.id = ANY(CAST(:runs AS bigint[]))
""")

RUN_COLUMNS = (
    run.c.id,
    run.c.namespace,
    run.c.name,
    run.c.run_id,
    run.c.spec_hash,
    run.c.on_uncertain,
    run.c.state,
    run.c.plan_wanted,
    run.c.plan_id,
    run.c.key_type,
    run.c.planned,
    run.c.skipped,
    run.c.created_at,
    run.c.started_at,
    run.c.ended_at,
    run.c.retry_generation,
    run.c.end_reason,
    run.c.paused_at,
    run.c.pause_reason,
    run.c.pause_message,
    run.c.resumed_at,
    run.c.retried,
    run.c.approved_before,
)

# Touched, and nobody's lease holds; :idle: also those that were given back and wait for an owner.
_UNOWNED = text("""
SELECT run, id FROM range
WHERE run = ANY(CAST(:runs AS bigint[])) AND state = 'Open' AND epoch > 0
  AND (:idle OR owner IS NOT NULL OR NOT isempty(open) OR NOT isempty(resending))
  AND (lease_until IS NULL OR lease_until < clock_timestamp() OR :leased
       OR lease_until > clock_timestamp() + :horizon * interval '1 second')
ORDER BY id
""")

_WAVES = text("""
SELECT w.run, w.number, w.kind, w.ranges, w.planned, w.created_at, w.held,
    count(r.id) FILTER (WHERE r.state <> 'Open') AS finished,
    count(r.id) FILTER (WHERE r.state = 'Open') AS open,
    count(r.id) FILTER (WHERE r.state = 'Open' AND r.lease_until > clock_timestamp()) AS active,
    coalesce(sum(r.planned - r.pos + CASE WHEN isempty(r.returned) THEN 0 ELSE width(r.returned) END)
             FILTER (WHERE r.state = 'Open'), 0)::bigint AS unclaimed
FROM wave w LEFT JOIN range r ON r.run = w.run AND r.wave = w.number
WHERE w.run = ANY(CAST(:runs AS bigint[]))
GROUP BY w.run, w.number ORDER BY w.run, w.number
""")

# Ranges are found by the pages that they are of: those that moved into a Repair wave count here as well.
_STEPS = text(f"""
SELECT w.run, w.number AS step, w.held, w.ended_at, w.planned, count(*) FILTER (WHERE r.state = 'Open') AS open,
    sum(r.sent) AS sent, sum(r.failed) AS failed, sum(r.uncertain) AS uncertain, sum(r.deferred) AS deferred
FROM wave w JOIN range r ON r.run = w.run AND r.page_wave = {SKIPPED_WAVE} - w.number
WHERE w.kind = 'Canary' AND w.run IN (SELECT run FROM wave WHERE run = ANY(CAST(:runs AS bigint[])) AND held)
GROUP BY w.run, w.number ORDER BY w.run, w.number
""")

# Grouped by the columns as they are, so that the index of failed deliveries is all that is read; the sample is that of
# whichever is found first.
_FAILURES = """
WITH counted AS (SELECT coalesce(enhanced, code) AS reason, sum(n)::bigint AS n
                 FROM (SELECT d.enhanced, d.code, count(*) AS n FROM delivery d
                       WHERE d.run = :run AND d.outcome = 'failed' {} GROUP BY d.enhanced, d.code) g
                 GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT :most)
SELECT coalesce(reason, 'Unknown') AS code, n AS count, coalesce(
    (SELECT coalesce(d.reply, '') FROM delivery d
     WHERE d.run = :run AND d.outcome = 'failed' AND d.enhanced = reason LIMIT 1),
    (SELECT coalesce(d.reply, '') FROM delivery d
     WHERE d.run = :run AND d.outcome = 'failed' AND d.enhanced IS NULL AND d.code = reason LIMIT 1), '') AS sample
FROM counted ORDER BY n DESC, code
"""
_NOT_DECIDED_AGAIN = "AND NOT EXISTS (SELECT 1 FROM delivery l WHERE l.run = d.run AND l.key = d.key AND l.id > d.id)"
_FIRST_FAILURES, _LAST_FAILURES = text(_FAILURES.format("")), text(_FAILURES.format(_NOT_DECIDED_AGAIN))
FAILURES_SECONDS = 5.0
"""How long counting them may take; the operator asks again later, and less often."""


def run_row(found: Sequence[Any]) -> RunRow:
    """A row of `RUN_COLUMNS`, as a value."""
    number, namespace, name, run_id, definition_hash, on_uncertain, state, *rest = found
    return RunRow(number, namespace, name, run_id, definition_hash, OnUncertain(on_uncertain), RunState(state), *rest)


def totals(connection: Connection, runs: Sequence[int]) -> dict[int, Totals]:
    """TOTALS of many runs, within a transaction of the caller."""
    rows = connection.execute(_TOTALS, {"runs": list(runs)}).mappings()
    return {row["id"]: Totals(**{k: int(v) for k, v in row.items() if k != "id"}) for row in rows}


class Books:
    """The reading half of `Runs`. Every method may raise `LedgerUnavailable`; ask again at the next tick."""

    def __init__(self, engine: Engine, timing: Timing | None = None) -> None:
        self._engine, self._timing = engine, timing or Timing()

    def get(self, run_id: int) -> RunRow | None:
        """One run by its number."""
        with available(), self._engine.connect() as connection:
            found = connection.execute(select(*RUN_COLUMNS).where(run.c.id == run_id)).one_or_none()
            return run_row(found) if found else None

    def find(self, namespace: str, name: str) -> list[RunRow]:
        """All runs of a campaign's name, oldest first."""
        return self.find_all([(namespace, name)])

    def find_all(self, names: Iterable[tuple[str, str]]) -> list[RunRow]:
        """All runs of many campaigns, each (namespace, name), oldest first."""
        query = select(*RUN_COLUMNS).where(tuple_(run.c.namespace, run.c.name).in_(list(names))).order_by(run.c.id)
        with available(), self._engine.connect() as connection:
            return [run_row(r) for r in connection.execute(query)]

    def active(self) -> list[RunRow]:
        """All runs that have not ended, oldest first."""
        query = select(*RUN_COLUMNS).where(run.c.ended_at.is_(None)).order_by(run.c.id)
        with available(), self._engine.connect() as connection:
            return [run_row(r) for r in connection.execute(query)]

    def totals(self, runs: Sequence[int]) -> dict[int, Totals]:
        """The sums of many runs, in one snapshot. Runs that the ledger does not know are left out."""
        with available(), self._engine.connect() as connection:
            return totals(connection, runs)

    def waves(self, runs: Sequence[int]) -> dict[int, list[WaveRow]]:
        """The waves of many runs, in their order; a run without waves has no entry."""
        found: dict[int, list[WaveRow]] = {}
        with available(), self._engine.connect() as connection:
            for row in connection.execute(_WAVES, {"runs": list(runs)}).mappings():
                values: dict[str, Any] = {**row, "kind": WaveKind(row["kind"])}
                found.setdefault(row["run"], []).append(WaveRow(**values))
        return found

    def steps(self, runs: Sequence[int]) -> dict[int, list[StepRow]]:
        """The canary steps of those of the runs that have not passed all of them, in their order."""
        found: dict[int, list[StepRow]] = {}
        with available(), self._engine.connect() as connection:
            for row in connection.execute(_STEPS, {"runs": list(runs)}).mappings():
                found.setdefault(row["run"], []).append(StepRow(**row))
        return found

    def skipped(self, run_id: int) -> dict[str, int]:
        """Why recipients of a run's plan are skipped: reason -> how many, the most first. Reads all their pages."""
        count = func.sum(func.cardinality(page.c["keys"]))
        query = (
            select(page.c.reason, count)
            .join_from(run, page, (page.c.run == run.c.id) & (page.c.plan == run.c.plan_id))
            .where(run.c.id == run_id, page.c.wave == SKIPPED_WAVE)
            .group_by(page.c.reason)
            .order_by(count.desc(), page.c.reason)
        )
        with available(), self._engine.connect() as connection:
            return {str(row[0]): int(row[1]) for row in connection.execute(query)}

    def failures(self, run_id: int, most: int, *, retried: bool) -> tuple[Failure, ...]:
        """The most frequent codes of a run's failed recipients, the most first; their counts add up to `Totals.failed`
        at most. An enhanced code (5.1.1) stands for all basic codes that came with it.

        Args:
            run_id: the run.
            most: of them are told.
            retried: failed ones were sent to again: only the last verdict of each recipient counts, which is dearer.
        """
        query = _LAST_FAILURES if retried else _FIRST_FAILURES
        with transaction(self._engine, Timing(statement_seconds=FAILURES_SECONDS)) as connection:
            return tuple(Failure(*row) for row in connection.execute(query, {"run": run_id, "most": most}))

    def frequent_failure(self, run_id: int) -> str | None:
        """The code of most of a run's failures, the enhanced one where there is one; None: none, or it takes long."""
        try:
            most = self.failures(run_id, 1, retried=False)
        except LedgerUnavailable:
            return None
        return most[0].code if most else None

    def audience(self, run_id: int) -> dict[str, Any]:
        """What the planner tells of a published plan beside counts: `domains`, `lines`, `fileReadAt`."""
        with available(), self._engine.connect() as connection:
            found = connection.scalar(select(run.c.audience).where(run.c.id == run_id))
            return dict(found or {})

    def open_ranges(self, run_id: int) -> list[tuple[int, int]]:
        """(wave, index) of each range that still owes something."""
        r = range_.c
        query = select(r.wave, r.idx).where(r.run == run_id, r.state == "Open").order_by(r.wave, r.idx)
        with available(), self._engine.connect() as connection:
            return [(row.wave, row.idx) for row in connection.execute(query)]

    def unowned(self, runs: Sequence[int], *, idle: bool = False, leased: bool = False) -> dict[int, list[int]]:
        """Ranges whose owner is gone without a drain, by run: `settle` them if no successor is to come.

        Args:
            runs: ids of runs.
            idle: also those that were drained or settled and wait for an owner.
            leased: also those whose owner's lease holds.
        """
        horizon = self._timing.lease_seconds + self._timing.clock_slack_seconds
        found: dict[int, list[int]] = {}
        with available(), self._engine.connect() as connection:
            values = {"runs": list(runs), "horizon": horizon, "idle": idle, "leased": leased}
            for row in connection.execute(_UNOWNED, values):
                found.setdefault(row.run, []).append(row.id)
        return found

    def late(self, runs: Sequence[int]) -> dict[int, int]:
        """Late outcomes that wait in ranges that have ended, counted by run: `absorb_late` them."""
        query = (
            select(range_.c.run, func.count())
            .join_from(late_outcome, range_, range_.c.id == late_outcome.c.range)
            .where(range_.c.run.in_(runs), range_.c.state != "Open")
            .group_by(range_.c.run)
        )
        with available(), self._engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def deferrals(self, runs: Sequence[int]) -> dict[int, Deferrals]:
        """What waits for a Retry wave; a run where nothing waits has no entry."""
        d = deferral.c
        due = func.count().filter(d.due_at <= func.clock_timestamp())
        query = select(d.run, func.count(), due, func.min(d.due_at)).where(d.run.in_(runs)).group_by(d.run)
        with available(), self._engine.connect() as connection:
            return {row[0]: Deferrals(row[1], row[2], row[3]) for row in connection.execute(query)}

    def reports(self, runs: Sequence[int]) -> list[Report]:
        """What planners and senders of these runs say about themselves, newest first."""
        r = report.c
        query = select(r.run, r.reporter, r.reason, r.message, r.at).where(r.run.in_(runs)).order_by(r.at.desc())
        with available(), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [Report(row.run, row.reporter, ReportReason(row.reason), row.message, row.at) for row in rows]
