"""When a relay is tried: at first sight, when what it says or names was changed, each hour, and again after a failure.

The operator reads no Secret, so it does not see a password being mended: the next try does. A preflight that waits
for a Secret goes on by itself when the Secret is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from mailfleet_operator import delays, names
from mailfleet_operator.actions import CreatePreflightJob, DeleteJob

if TYPE_CHECKING:
    from datetime import datetime

    from mailfleet_operator.observation import JobView

    from .observation import RelayObservation

EVERY = timedelta(hours=1)
"""A certificate that ran out, or a password that was changed, is known an hour later without any campaign."""
SPREAD_SECONDS = 360
"""Relays that were first seen together are not tried together for ever: some are tried up to so much earlier."""
LONGEST = timedelta(minutes=10)
"""Between tries of what failed. Not less: providers close accounts after many wrong passwords."""
STUCK = timedelta(minutes=15)
"""A preflight takes a minute at most; what has not ended by then (lost node, no room) is replaced."""


@dataclass(frozen=True, slots=True)
class Next:
    """What to do now, and when the relay is to be tried again."""

    actions: tuple[CreatePreflightJob | DeleteJob, ...] = ()
    due: datetime | None = None


def policy(o: RelayObservation) -> Next:
    """One preflight at a time, for the relay as it is now. None without the ledger: its pod reads the relay there."""
    if o.relay.relay is None or o.ledger_trouble:
        return Next()
    mine = [j for j in o.jobs if j.owner_uid == o.relay.uid and not j.deleting]
    outdated = tuple(
        DeleteJob(j.name, j.uid, "what the relay says or names was changed") for j in mine if j.made_for != o.made_for
    )
    if job := o.at_work:
        if not _stuck(o, job):
            return Next(outdated)
        return Next((*outdated, *_another(o, job.attempt + 1, job.uid)))
    due, attempt = next_try(o)
    if o.now < due:
        return Next(outdated, due)
    after = o.last.uid if o.last else o.verdict.at.isoformat() if o.verdict else ""
    return Next((*outdated, *_another(o, attempt, after)))


def next_try(o: RelayObservation) -> tuple[datetime, int]:
    """When, and the how manieth try since the last that passed it is."""
    passed = o.verdict is not None and o.verdict.fault is None
    if (last := o.last) is not None:
        ended = last.ended_at or o.now
        if last.complete and passed:
            return ended + interval(o), 1
        return ended + delays.growing(last.attempt, longest=LONGEST), last.attempt + 1
    if o.verdict is None or o.verdict.at > o.now + EVERY:  # or the ledger's clock was wrong
        return o.now, 1
    return o.verdict.at + (interval(o) if passed else delays.growing(1)), 1


def interval(o: RelayObservation) -> timedelta:
    """Between tries of a relay that is good."""
    return EVERY - timedelta(seconds=int(names.digest(o.relay.uid), 16) % SPREAD_SECONDS)


def _another(o: RelayObservation, attempt: int, after: str) -> tuple[CreatePreflightJob | DeleteJob, ...]:
    done = (DeleteJob(j.name, j.uid, "another preflight follows") for j in o.own_jobs)
    return (CreatePreflightJob(o.made_for, attempt, after), *done)


def _stuck(o: RelayObservation, job: JobView) -> bool:
    if any(p.running for p in o.pods_of(job)) and job.image == o.image:
        return _age(o, job) > 2 * STUCK
    return job.image != o.image or _age(o, job) > STUCK


def _age(o: RelayObservation, job: JobView) -> timedelta:
    return o.now - job.created_at if job.created_at else timedelta(0)
