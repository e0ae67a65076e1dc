"""How an audience is cut into canary steps and the rest: each of them spread evenly over all keys.

The steps are sets within sets: of the audience those of all steps, of these those of all steps but the last, and so
on. Of P keys in a row, Q are picked as a line of that slope is drawn (Bresenham): before key number n lie
(2nQ + P) / 2P of those that are picked, rounded down. So every stretch of the audience holds its share of every set,
to within one key, and every key is in exactly one step or in the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailfleet_sender.contract.campaign import CanaryStep


def cut(numbered: sa.Subquery, steps: Sequence[CanaryStep], to_send: int) -> sa.Subquery:
    """Number the keys of each step anew.

    Args:
        numbered: rows of a key `k`, its verdict `v`, its number `n` among those of this verdict, from 0, and how many
            these are, `total`.
        steps: in their order.
        to_send: the verdict whose keys are cut; the others have no steps.

    Returns:
        rows of `k`, `v`, `step` (0: the rest) and `n`, the key's number within verdict and step.
    """
    rest = len(steps) + 1
    present: sa.FromClause = numbered
    step: sa.ColumnElement[int] = sa.case((numbered.c.v == to_send, rest), else_=0)
    number: sa.ColumnElement[int] = numbered.c.n
    for inner in range(len(steps), 0, -1):
        # A fence: the server would put each level's expressions into the next ones, each several times.
        within = (
            sa.select(present.c.k, present.c.v, present.c.total, step.label("step"), number.label("n"))
            .offset(0)
            .subquery(f"within_{inner}")
        )
        size = _first(steps[: inner + 1], within.c.total) if inner < len(steps) else within.c.total
        picked = _first(steps[:inner], within.c.total)
        before, behind = _picked_before(within.c.n, picked, size), _picked_before(within.c.n + 1, picked, size)
        concerned, is_picked = within.c.step == inner + 1, behind > before
        step = sa.case((sa.and_(concerned, is_picked), inner), else_=within.c.step)
        number = sa.case((sa.not_(concerned), within.c.n), (is_picked, before), else_=within.c.n - before)
        present = within
    final = sa.case((step == rest, 0), else_=step)
    return sa.select(present.c.k, present.c.v, final.label("step"), number.label("n")).offset(0).subquery("cut")


def _first(steps: Sequence[CanaryStep], total: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    """How many recipients the first steps have together; as `Canary.sizes`."""
    wanted: list[sa.ColumnElement[int]] = [
        sa.literal_column(str(step.recipients), sa.BigInteger)
        if step.recipients
        else (total * step.percent + 99) // 100
        for step in steps
    ]
    together = wanted[0]
    for more in wanted[1:]:
        together = together + more
    return sa.func.least(total, together, type_=sa.BigInteger)


def _picked_before(
    number: sa.ColumnElement[Any], picked: sa.ColumnElement[Any], size: sa.ColumnElement[Any]
) -> sa.ColumnElement[int]:
    return (2 * number * picked + size) // (2 * size)
