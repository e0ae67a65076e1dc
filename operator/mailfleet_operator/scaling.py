"""How many senders: the control law. Pure.

The limiter keeps the rate exact however many pods ask; here is only decided how many are worth their
memory. What one sender can do is not known before it has been tried (relay, message and network decide),
so the fleet is measured: it grows while permits are left unused and there is work, and it shrinks by one
when the full rate has held for a while, remembering where that went wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

ASSUMED_PER_SECOND = 500.0
"""What a sender is assumed to send until measured: about half of what one core did over loopback."""
SATURATED = 0.97
"""A relay used to this share of its limit has no permits to spare: another sender would only wait."""
STARVED = 0.95
"""Below this share permits are left unused: a rate is kept within 5 %. The gap to SATURATED is the hysteresis; what
the measuring blurs beyond it is caught by `rate_before`."""
GROW_AFTER = timedelta(seconds=25)
"""Counted from when all pods asked for run; longer than the window in which the rate is measured (`pace.WINDOW`),
or the seconds in which pods started would look like a lack of them."""
SHRINK_AFTER = timedelta(seconds=120)
"""Shrinking saves memory, nothing else: no hurry."""
TURN_AFTER = timedelta(seconds=60)
"""Nothing grows sooner after it was shrunk: a dip of the rate is cheaper than a fleet that goes to and fro. The other
way round SHRINK_AFTER is longer."""
TRIAL_SIZE = 5
"""From this size on one sender less is tried without proof: the dip, if it was needed, is small and short.
Below, a fleet shrinks only when what one sender was seen to do shows that the others suffice."""
FLOOR_HOLDS = timedelta(minutes=15)
"""How long a size that proved too small is not tried again."""
RANGE_SECONDS = 300
"""A range is about five minutes of one sender's work: long beside the seconds that a pod needs to start."""
SMALLEST_RANGE = 1_000
LARGEST_JOB = 10_000
"""Ranges of one Job: the completed indexes of an Indexed Job travel in its status."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the law remembers between decisions. A restarted operator begins with an empty one."""

    changed_at: datetime | None = None
    best: float = 0.0
    """The most that one sender was seen to do, recipients per second."""
    floor: int = 0
    """One more than a size that proved too small for `floor_limit`, the limit of then."""
    floor_limit: float = 0.0
    floor_until: datetime | None = None
    shrunk_at: datetime | None = None
    rate_before: float | None = None
    """This campaign's rate when the fleet was last grown: growth that gained nothing is not repeated."""


@dataclass(frozen=True, slots=True)
class Load:
    """What was measured of one campaign and its relay.

    Attributes:
        limit: of the relay's account, permits per second.
        rate: recipients per second of this campaign over the last seconds.
        account_rate: the same of all campaigns that share the account.
        senders: pods that are running now.
        open_ranges: ranges that still need a pod.
    """

    limit: float
    rate: float
    account_rate: float
    senders: int
    open_ranges: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """`senders.minReplicas` and `maxReplicas`."""

    low: int
    high: int

    def clamp(self, wanted: int) -> int:
        """The nearest allowed number; a maximum below the minimum wins."""
        return min(self.high, max(self.low, wanted))


def first_size(limit: float, bounds: Bounds) -> int:
    """Senders to begin with, before anything was measured."""
    return bounds.clamp(math.ceil(limit / ASSUMED_PER_SECOND))


def range_size(*, asked: int | None, planned: int, limit: float, senders: int) -> int:
    """Recipients of a range: about `RANGE_SECONDS` of one sender's work, at least `SMALLEST_RANGE`, and
    enough ranges that twice the expected senders could work; never more than `LARGEST_JOB` ranges.
    """
    if asked is None:
        share = limit * RANGE_SECONDS / max(1, senders)
        roomy = math.ceil(planned / max(1, 2 * senders))
        asked = max(SMALLEST_RANGE, min(math.ceil(share), roomy))
    return max(1, asked, math.ceil(planned / LARGEST_JOB))


def decide(load: Load, size: int, bounds: Bounds, memory: Memory, now: datetime) -> tuple[int, Memory]:
    """The number of senders that should be there, and what to remember.

    `size` is the number asked for now. Bounds hold at once; growing and shrinking wait. Open ranges limit growth
    alone: Kubernetes starts no pod for an index that is done, and lowering parallelism near the end would kill a
    sender at work in place of one that is about to exit.
    """
    if load.senders:
        memory = replace(memory, best=max(memory.best, load.rate / load.senders))
    low = min(bounds.low, bounds.high, max(1, load.open_ranges))
    allowed = Bounds(low, max(low, min(bounds.high, max(size, load.open_ranges))))
    if (clamped := allowed.clamp(size)) != size:
        return clamped, replace(memory, changed_at=now, rate_before=None)
    # No pod is started for a range that is done: so many are all that this size can have.
    if memory.changed_at is None or load.senders < min(size, load.open_ranges):
        return size, replace(memory, changed_at=now)  # what is measured now is not yet this size's rate
    rested = now - memory.changed_at
    if load.account_rate >= SATURATED * load.limit:
        if rested >= SHRINK_AFTER and _one_less_will_do(load, size, allowed, memory, now):
            return size - 1, replace(memory, changed_at=now, shrunk_at=now, rate_before=None)
    elif load.account_rate < STARVED * load.limit and rested >= GROW_AFTER and _more_may_help(load, size, memory, now):
        missing = load.limit - load.account_rate
        # At most twice as many: a rate next to nothing would ask for more than there are numbers.
        grown = allowed.clamp(size + math.ceil(min(size, missing * load.senders / load.rate)))
        if grown > size:
            memory = replace(memory, floor=size + 1, floor_limit=load.limit, floor_until=now + FLOOR_HOLDS)
            return grown, replace(memory, changed_at=now, rate_before=load.rate)
    return size, memory


def _one_less_will_do(load: Load, size: int, allowed: Bounds, memory: Memory, now: datetime) -> bool:
    """The fleet waits for permits; would it, with one sender less?"""
    if size <= max(allowed.low, _floor(load, memory, now), 1):
        return False
    return size >= TRIAL_SIZE or (size - 1) * memory.best >= load.rate / SATURATED


def _floor(load: Load, memory: Memory, now: datetime) -> int:
    """The smallest size that did not prove too small: for a lower limit than that of then, its share."""
    if memory.floor_until is None or now >= memory.floor_until:
        return 0
    share = load.limit / memory.floor_limit if memory.floor_limit else 1.0
    return math.ceil(memory.floor * min(1.0, share))


def _more_may_help(load: Load, size: int, memory: Memory, now: datetime) -> bool:
    """Permits are left unused by a fleet that is at work, and its last growth was of use: it gained half of its share,
    or a tenth."""
    if load.rate <= 0 or (memory.shrunk_at and now - memory.shrunk_at < TURN_AFTER):
        return False
    if memory.rate_before is None:
        return True
    before = max(1, memory.floor - 1)  # what it grew from
    return load.rate >= memory.rate_before * (1 + min(0.1, 0.5 * (size - before) / before))
