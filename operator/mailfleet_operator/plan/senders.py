"""How many senders each wave gets: the control law decides the sum, this policy shares it out.

A Retry wave runs beside Main with at most a quarter of the senders; alone, a wave has them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator import scaling
from mailfleet_operator.actions import RememberScaling, ScaleJob
from mailfleet_operator.observation import SENDER
from mailfleet_sender.contract.accounts import RunState, WaveKind

from . import quota
from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.actions import Action
    from mailfleet_operator.observation import JobView, Observation


def policy(o: Observation) -> Step | None:
    """Patch the parallelism of the Jobs at work."""
    if o.held or not (o.ledger and o.ledger.run) or o.ledger.run.state is not RunState.OPEN:
        return None
    if quota.waits(o):
        return None  # more senders would not help, and these will be wanted
    wanted, memory = sizes(o)
    actions: list[Action] = []
    for job in working_jobs(o):
        size = wanted.get(job.wave or 0)
        if size is not None and size != job.parallelism:
            actions.append(ScaleJob(job.name, job.uid, size))
    if memory != o.scaling:
        actions.append(RememberScaling(memory))
    return Step(tuple(actions)) if actions else None


def working_jobs(o: Observation) -> tuple[JobView, ...]:
    """The Jobs that send for this run."""
    run = o.ledger.run.id if o.ledger and o.ledger.run else None
    return tuple(j for j in o.own_jobs if j.component == SENDER and j.run == run and not j.over and not j.deleting)


def sizes(o: Observation) -> tuple[dict[int, int], scaling.Memory]:
    """Senders for each open wave by its number, and what the control law remembers.

    The law measures the waves that carry the run; a Retry wave beside them gets its quarter on top as long as
    maxReplicas has room, so that a trickle of retries ends no sender of Main.
    """
    waves = o.ledger.at_work if o.ledger else ()
    if not waves:
        return {}, o.scaling
    bounds = o.bounds
    carrying = [w for w in waves if w.kind is not WaveKind.RETRY] or waves
    beside = [w for w in waves if w not in carrying]
    numbers = {w.number for w in carrying}
    jobs = [j for j in working_jobs(o) if j.wave in numbers]
    size = sum(j.parallelism for j in jobs) or scaling.first_size(o.limit, bounds)
    load = scaling.Load(
        limit=o.limit,
        rate=o.pace.per_second,
        account_rate=max(o.account_rate, o.pace.per_second),
        senders=sum(1 for j in jobs for p in o.pods_of(j) if p.running),
        open_ranges=sum(w.open for w in carrying),
    )
    total, memory = scaling.decide(load, size, bounds, o.scaling, o.now) if o.limit else (size, o.scaling)
    shares = {w.number: max(1, min(w.open, total // 4)) for w in beside}
    left = max(1, min(total, bounds.high - sum(shares.values())))
    for wave in carrying[:-1]:
        shares[wave.number] = min(wave.open, left)
        left = max(1, left - shares[wave.number])
    shares[carrying[-1].number] = left
    return shares, memory
