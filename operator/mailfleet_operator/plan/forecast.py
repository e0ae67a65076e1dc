"""What a plan says of the time that sending will take, before anything is sent.

At the relay's limit, which is the most that can be: other campaigns, or a relay slower than its limit, only add.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mailfleet_operator import windows

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation

STEP_SECONDS = 300
"""The present time counts in steps, so that the words do not change with every look."""


def words(o: Observation) -> str:
    """How long it takes, and how many are left over if the schedule is too short; nothing where that is unknown."""
    spec, ledger = o.campaign.spec, o.ledger
    if not spec or not ledger or not o.limit or not ledger.totals.remaining:
        return ""
    schedule, remaining = spec.schedule, ledger.totals.remaining
    takes = f"; at the relay's limit the others take {duration(remaining / o.limit)}"
    begins = o.now - timedelta(seconds=o.now.timestamp() % STEP_SECONDS)
    if schedule.start_time:
        begins = max(begins, schedule.start_time)
    open_time = windows.time_left(schedule, begins)
    if open_time is None or (left := remaining - int(open_time.total_seconds() * o.limit)) <= 0:
        return takes
    return f"{takes}: does not fit its window, {left:,} left"


def domains(o: Observation, *, room: int) -> str:
    """Where the most of the mail goes, as many domains as fit into so many octets; nothing where that is unknown."""
    told = ""
    for domain, percent in o.ledger.domains if o.ledger else ():
        more = f"{', ' if told else '; most at '}{domain} {percent} %"
        if len((told + more).encode()) > room:
            break
        told += more
    return told


def duration(seconds: float) -> str:
    """For people: 45 s, 35 min, 7.5 h, 3.1 days."""
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    if seconds < 7200:
        return f"{round(seconds / 60)} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} days"
