"""Each wave with open ranges has a Job. What a wave leaves unfinished moves into a Repair wave.

A wave without a Job is found by its number, so a crash between the ledger's write and the Job's creation is
mended by the next tick. A Job that is over, or gone after part of the work, is not revived: its open ranges
move on, the same rows with the same pages.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from mailfleet_operator import delays, names
from mailfleet_operator.actions import Action, CreateWaveJob, DeleteJob, MakeRepairWave
from mailfleet_sender.contract.accounts import RunState, WaveKind

from .senders import sizes
from .step import Step

if TYPE_CHECKING:
    from datetime import datetime

    from mailfleet_operator.observation import JobView, Observation, WaveView


def policy(o: Observation) -> Step | None:
    """See to every open wave."""
    if not (o.ledger and o.ledger.run) or o.ledger.run.state is not RunState.OPEN:
        return None
    actions = tuple(a for w in o.ledger.at_work if (a := _for_wave(o, o.ledger.run.id, w)))
    return Step(actions) if actions else None


def job_name(o: Observation, run: int, wave: int) -> str:
    """The name of a wave's Job."""
    return names.wave_job(o.campaign.name, o.campaign.namespace, run, wave)


def _for_wave(o: Observation, run: int, wave: WaveView) -> Action | None:
    if job := o.job(job_name(o, run, wave.number)):
        return _with_job(o, run, wave, job)
    if o.held or not (o.relay and o.relay.relay):
        return None
    if wave.open < wave.ranges:
        return MakeRepairWave(run, wave.number)
    shares, _ = sizes(o)
    senders = min(wave.ranges, shares.get(wave.number, 1))
    return CreateWaveJob(run, wave.number, wave.ranges, senders, suspended=False)


def _with_job(o: Observation, run: int, wave: WaveView, job: JobView) -> Action | None:
    if job.deleting or job.owner_uid != o.campaign.uid:
        return None  # waited out, never adopted
    if job.over:
        return MakeRepairWave(run, wave.number) if o.now >= repair_time(o, wave, job) else None
    if o.relay and o.relay.relay and job.made_for != o.made_for_send:
        return DeleteJob(job.name, job.uid, "the Secrets that its pods read were changed")
    return None


def repair_time(o: Observation, wave: WaveView, job: JobView) -> datetime:
    """When the open ranges of an ended Job are tried again: at once, but later and later while waves in a row
    finish nothing (a password that the relay refuses is not tried in a loop)."""
    if job.ended_at is None:
        return o.now
    if wave.finished or o.ledger is None:
        return job.ended_at
    newest_first = sorted(o.ledger.waves, key=lambda w: w.number, reverse=True)
    barren = sum(1 for _ in takewhile(lambda w: w.kind is WaveKind.REPAIR and not w.finished, newest_first))
    return job.ended_at + delays.growing(barren + 1)
