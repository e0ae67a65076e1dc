"""Waves: their pages and ranges, made under the run's lock, in a transaction of the caller."""

# ruff: noqa: S608 - what is put into these statements is constants of this package, values are bound

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select, text, update

from mailfleet_sender.contract.accounts import RunState, WaveKind

from .tables import doubt, range_, run, wave
from .values import MAIN_PAGES, PAGE_SIZE, SKIPPED_WAVE, pages_of_step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

UNCERTAIN = "Uncertain"
"""Among the codes of a retry: who is uncertain for good is sent once more."""

# Ranges of whole pages over `:keys` keys in pages from `:first_page` on; the last range holds what is left.
_INSERT_RANGES = text(f"""
INSERT INTO range (run, wave, idx, plan, page_wave, first_page, planned, from_verdict)
SELECT :run, :wave, :first_index + i, :plan, :page_wave, :first_page + i * :pages,
    least(:keys - i * :pages * {PAGE_SIZE}, :pages * {PAGE_SIZE}), :from_verdict
FROM generate_series(0, (:keys - 1) / (:pages * {PAGE_SIZE})) AS i
""")

# Keys of each canary step, step 1 first.
_STEPS = text(f"""
SELECT sum(cardinality(keys))::int FROM page WHERE run = :run AND plan = :plan AND wave < {SKIPPED_WAVE}
GROUP BY wave ORDER BY wave DESC
""")

_END_STEP = text(f"""
UPDATE wave SET ended_at = clock_timestamp()
WHERE run = :run AND number = :step AND kind = 'Canary' AND NOT held AND ended_at IS NULL
  AND NOT EXISTS (SELECT 1 FROM range WHERE run = :run AND page_wave = {SKIPPED_WAVE} - :step AND state = 'Open')
""")
_PASS_STEP = text("""
UPDATE wave SET held = false WHERE run = :run AND number = :step + 1 AND held
  AND EXISTS (SELECT 1 FROM wave WHERE run = :run AND number = :step AND ended_at IS NOT NULL)
""")

_INSERT_RETRY_PAGES = text(f"""
WITH due AS (DELETE FROM deferral WHERE run = :run AND due_at <= clock_timestamp() RETURNING key, attempt, since),
     numbered AS (SELECT *, row_number() OVER (ORDER BY since, key) - 1 AS n FROM due),
     pages AS (INSERT INTO page (run, plan, wave, number, keys, attempts, since)
               SELECT :run, :plan, :wave, n / {PAGE_SIZE}, array_agg(key ORDER BY n), array_agg(attempt ORDER BY n),
                      array_agg(since ORDER BY n)
               FROM numbered GROUP BY n / {PAGE_SIZE})
SELECT count(*) FROM due
""")

# Whoever failed so and has no later verdict. `since` begins anew: what failed of its age gets a whole age again.
_RETRY_FAILED = """
SELECT d.key, d.attempt FROM delivery d
WHERE d.run = :run AND d.outcome = 'failed' AND d.key IS NOT NULL
  AND (d.code = ANY(CAST(:codes AS text[])) OR d.enhanced = ANY(CAST(:codes AS text[])))
  AND NOT EXISTS (SELECT 1 FROM delivery l WHERE l.run = d.run AND l.key = d.key AND l.id > d.id)
"""
# Doubts of ranges that are locked. From here on a late outcome cannot settle them: the sum has let them go.
_RETRY_UNCERTAIN = """
UPDATE doubt SET retried = true WHERE range = ANY(CAST(:ranges AS bigint[])) AND NOT retried AND key IS NOT NULL
RETURNING key, coalesce((SELECT d.attempt FROM delivery d WHERE d.run = :run AND d.key = doubt.key
                         ORDER BY d.id DESC LIMIT 1), 1::smallint) AS attempt
"""


def _pages(chosen: str) -> str:
    return f"""
WITH chosen AS ({chosen}),
     numbered AS (SELECT *, row_number() OVER (ORDER BY key) - 1 AS n FROM chosen),
     pages AS (INSERT INTO page (run, plan, wave, number, keys, attempts, since)
               SELECT :run, :plan, :wave, :first_page + n / {PAGE_SIZE}, array_agg(key ORDER BY n),
                      array_agg(attempt ORDER BY n), array_agg(CAST(NULL AS timestamptz))
               FROM numbered GROUP BY n / {PAGE_SIZE})
SELECT count(*) FROM chosen
"""


_PAGES_OF = {"failed": text(_pages(_RETRY_FAILED)), "uncertain": text(_pages(_RETRY_UNCERTAIN))}


def lock_open(connection: Connection, run_id: int) -> int | None:
    """Lock an Open run's row; its plan's number, or None."""
    query = select(run.c.plan_id).where(run.c.id == run_id, run.c.state == RunState.OPEN).with_for_update()
    plan: int | None = connection.scalar(query)
    return plan


def next_wave(connection: Connection, run_id: int) -> int:
    last = connection.scalar(select(func.max(wave.c.number)).where(wave.c.run == run_id))
    return int(last or 0) + 1


def insert_wave(
    connection: Connection,
    run_id: int,
    number: int,
    kind: WaveKind,
    *,
    plan: int,
    pages_of: int,
    keys: int,
    range_size: int,
    from_verdict: str | None = None,
    held: bool = False,
) -> None:
    """One wave with ranges of whole pages over `keys` keys."""
    ranges = insert_ranges(
        connection, run_id, number, plan=plan, pages_of=pages_of, keys=keys, range_size=range_size,
        from_verdict=from_verdict,
    )  # fmt: skip
    row = {"run": run_id, "number": number, "kind": kind.value, "ranges": ranges, "planned": keys, "held": held}
    connection.execute(insert(wave).values(row))


def insert_audience(connection: Connection, run_id: int, *, plan: int, keys: int, range_size: int) -> None:
    """The waves of a plan: its canary steps, numbered from 1, and the rest. All but the first wait."""
    cut = connection.execute(_STEPS, {"run": run_id, "plan": plan}).scalars().all()
    for step, size in enumerate(cut, 1):
        insert_wave(
            connection, run_id, step, WaveKind.CANARY, plan=plan, pages_of=pages_of_step(step), keys=size,
            range_size=range_size, held=step > 1,
        )  # fmt: skip
    if not cut or keys > sum(cut):
        insert_wave(
            connection, run_id, len(cut) + 1, WaveKind.MAIN, plan=plan, pages_of=MAIN_PAGES, keys=keys - sum(cut),
            range_size=range_size, held=bool(cut),
        )  # fmt: skip


def end_step(connection: Connection, run_id: int, step: int) -> bool:
    """See `Runs.end_step`."""
    return bool(connection.execute(_END_STEP, {"run": run_id, "step": step}).rowcount)


def pass_step(connection: Connection, run_id: int, step: int) -> bool:
    """See `Runs.pass_step`."""
    if lock_open(connection, run_id) is None:
        return False
    return bool(connection.execute(_PASS_STEP, {"run": run_id, "step": step}).rowcount)


def insert_ranges(
    connection: Connection,
    run_id: int,
    number: int,
    *,
    plan: int,
    pages_of: int,
    keys: int,
    range_size: int,
    from_verdict: str | None,
    first_page: int = 0,
    first_index: int = 0,
) -> int:
    """Ranges of whole pages over `keys` keys, in pages from `first_page` on.

    Returns:
        how many ranges.
    """
    if not keys:
        return 0
    values = {
        "run": run_id,
        "wave": number,
        "plan": plan,
        "page_wave": pages_of,
        "keys": keys,
        "pages": max(1, -(-range_size // PAGE_SIZE)),
        "from_verdict": from_verdict,
        "first_page": first_page,
        "first_index": first_index,
    }
    return connection.execute(_INSERT_RANGES, values).rowcount


def retry_due(connection: Connection, run_id: int, range_size: int) -> int | None:
    """RETRY WAVE of what is deferred and due; see `Runs.retry_wave`."""
    plan = lock_open(connection, run_id)
    if plan is None or _open_from(connection, run_id, "deferred"):
        return None
    number = next_wave(connection, run_id)
    keys = connection.scalar(_INSERT_RETRY_PAGES, {"run": run_id, "plan": plan, "wave": number})
    if not keys:
        return None
    insert_wave(
        connection, run_id, number, WaveKind.RETRY, plan=plan, pages_of=number, keys=keys, range_size=range_size,
        from_verdict="deferred",
    )  # fmt: skip
    return number


def retry_failed(
    connection: Connection, run_id: int, generation: int, codes: Sequence[str], range_size: int
) -> int | None:
    """RETRY WAVE of what is failed or uncertain; see `Runs.retry_failed`.

    Its ranges are of one verdict each, since each takes its recipients out of one term of the sum.
    """
    verdicts = ["failed", "uncertain"] if UNCERTAIN in codes else ["failed"]
    # The lock order is range, then run.
    ranges = _lock_doubted(connection, run_id) if UNCERTAIN in codes else []
    found = connection.execute(
        select(run.c.plan_id)
        .where(
            run.c.id == run_id,
            run.c.state.in_((RunState.OPEN, RunState.COMPLETE)),
            run.c.retry_generation < generation,
        )
        .with_for_update()
    ).one_or_none()
    if found is None or _open_from(connection, run_id, "failed", "uncertain"):
        return None
    number = next_wave(connection, run_id)
    pages = made = keys = 0
    for verdict in verdicts:
        place = {"run": run_id, "plan": found.plan_id, "wave": number, "first_page": pages}
        count = int(connection.scalar(_PAGES_OF[verdict], {**place, "codes": list(codes), "ranges": list(ranges)}) or 0)
        made += insert_ranges(
            connection, run_id, number, plan=found.plan_id, pages_of=number, keys=count, range_size=range_size,
            from_verdict=verdict, first_page=pages, first_index=made,
        )  # fmt: skip
        pages += -(-count // PAGE_SIZE)
        keys += count
    changes = {"state": RunState.OPEN.value, "ended_at": None} if keys else {}
    connection.execute(
        update(run).where(run.c.id == run_id).values(retry_generation=generation, retried=keys, **changes)
    )
    if not keys:
        return None
    row = {"run": run_id, "number": number, "kind": WaveKind.RETRY.value}
    connection.execute(insert(wave).values(**row, ranges=made, planned=keys))
    return number


def _open_from(connection: Connection, run_id: int, *verdicts: str) -> bool:
    query = select(range_.c.id).where(
        range_.c.run == run_id, range_.c.state == "Open", range_.c.from_verdict.in_(verdicts)
    )
    return connection.scalar(query.limit(1)) is not None


def _lock_doubted(connection: Connection, run_id: int) -> Sequence[int]:
    """Lock the ranges of a run that name somebody as uncertain for good."""
    doubted = select(doubt.c.range).where(~doubt.c.retried)
    query = select(range_.c.id).where(range_.c.run == run_id, range_.c.id.in_(doubted)).order_by(range_.c.id)
    return connection.scalars(query.with_for_update()).all()
