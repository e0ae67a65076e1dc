"""Recipients whose domain has a rate of its own: they wait, unclaimed, while the cursor goes on. Pure."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import chain
from typing import TYPE_CHECKING

from mailfleet_sender.limiter import ANY
from mailfleet_sender.limiter.appetite import LARGEST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mailfleet_sender.contract.campaign import Retry
    from mailfleet_sender.limiter import Permits

    from .candidate import Candidate

LEAST_BATCH = 10
"""Two batches of a slow relay are less than the connections of a pod may want."""
MOST = 2 * LARGEST
"""Who was deferred for the domain before waits among so many: to put them off again would take as long. So does
who waits for a domain that gave as many permits as were asked for: its limit holds up nobody."""
OCTETS = 8 * 1024 * 1024
"""The same for recipients with large columns."""


class Fate(Enum):
    """What becomes of a candidate for whom there is no permit."""

    DECIDED = auto()
    """It needs none: its verdict is known."""
    STOPS = auto()
    """It waits for a permit, and those after it wait for it."""
    WAITS = auto()
    """It waits for its domain and holds up nobody."""
    PUT_OFF = auto()
    """It is deferred: too many wait for their domain."""


@dataclass(slots=True)
class Taken:
    """Candidates on their way into the ledger.

    Attributes:
        returned: those that the cursor had passed: they are claimed out of `returned`.
        now, waiting, decided: those that the cursor passes now: to be sent, to wait, without sending.
    """

    returned: list[Candidate] = field(default_factory=list)
    now: list[Candidate] = field(default_factory=list)
    waiting: list[Candidate] = field(default_factory=list)
    decided: list[Candidate] = field(default_factory=list)

    @property
    def passes(self) -> int:
        """Where the cursor is afterwards; 0: it does not move."""
        return max((c.position + 1 for c in chain(self.now, self.waiting, self.decided)), default=0)


class Waiting:
    """At most two batches of candidates that wait for domains which hold them up; more of others.

    Attributes:
        limited: domains with a limit of their own.
        scarce: those of them that gave less than was asked for.
        batch: permits in the last batch.
    """

    def __init__(self, retry: Retry) -> None:
        self.limited: frozenset[str] = frozenset()
        self.scarce: frozenset[str] = frozenset()
        self.batch = 0
        self._retry = retry
        self._queues: dict[str, deque[Candidate]] = defaultdict(deque)
        self._count = self._octets = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def concerns(self, candidate: Candidate) -> bool:
        """Whether its domain has a limit."""
        return bool(self.limited) and candidate.domain in self.limited

    def granted(self, asked: Mapping[str, int], permits: Permits) -> None:
        """A batch of permits tells which domains hold up their recipients.

        Args:
            asked: how many were wanted, by domain.
        """
        self.batch = permits.count
        of = {d.name: d.count for d in permits.domains if d.name != ANY}
        if sum(of.values()) < permits.count:  # limited domains come first: there was room for more of theirs
            self.scarce = frozenset(name for name in asked if name != ANY and of.get(name, 0) < asked[name])

    def refused(self, asked: Mapping[str, int]) -> None:
        """There are no permits, because of the limits of these domains."""
        self.scarce = frozenset(name for name in asked if name != ANY)

    def has_room(self, candidate: Candidate) -> bool:
        """Whether it may wait; otherwise it is put off."""
        few = candidate.since is None and candidate.domain in self.scarce
        return self._octets < OCTETS and self._count < (2 * max(LEAST_BATCH, self.batch) if few else MOST)

    def counts(self) -> dict[str, int]:
        """Who waits, by domain."""
        return {domain: len(queue) for domain, queue in self._queues.items() if queue}

    def add(self, candidate: Candidate) -> None:
        """It waits from here on; the cursor passes it."""
        candidate.passed = True
        self._queues[candidate.domain].append(candidate)
        self._count += 1
        self._octets += candidate.octets

    def take(self, domain: str, count: int) -> list[Candidate]:
        """The first `count` of a domain."""
        queue = self._queues[domain]
        taken = [queue.popleft() for _ in range(min(count, len(queue)))]
        self._count -= len(taken)
        self._octets -= sum(candidate.octets for candidate in taken)
        return taken

    def put_off(self, candidate: Candidate) -> None:
        """It does not wait: it is deferred."""
        candidate.put_off(self._retry)

    def put_off_all(self, *, also_again: bool) -> list[Candidate]:
        """Those who wait no longer: all, or only those that were not deferred before."""
        gone = []
        for domain, queue in self._queues.items():
            taken = self.take(domain, len(queue))
            for candidate in taken:
                if also_again or candidate.since is None:
                    self.put_off(candidate)
                    gone.append(candidate)
                else:
                    self.add(candidate)
        return gone
