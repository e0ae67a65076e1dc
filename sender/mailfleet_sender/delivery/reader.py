"""Reads recipients ahead of the permits: a few pages, never the audience."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import structlog

from mailfleet_sender.audience import Row, SkipReason, UnusableRow
from mailfleet_sender.contract.accounts import OutcomeKind, ReportReason
from mailfleet_sender.errors import PlanError
from mailfleet_sender.ledger import PAGE_SIZE, Positions
from mailfleet_sender.limiter import ANY

from .candidate import Candidate
from .waiting import Fate, Taken, Waiting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from mailfleet_sender.audience import Audience
    from mailfleet_sender.contract.campaign import Retry
    from mailfleet_sender.ledger import PageKey

    from .suppression import Suppression
    from .threads import Thread
    from .trouble import Trouble

AHEAD = 3 * PAGE_SIZE
"""Rows read before they are needed: two batches of permits, and the page that is being read meanwhile."""
OCTETS_AHEAD = 8 * 1024 * 1024
"""The same for recipients with large columns: a sender's memory is that of its program and little more."""
FIRST_ROWS = 25
"""Read at once before it is known how large they are; four times as many after each read that was small."""
LOOK_AGAIN_SECONDS = 5.0
"""A suppression is honoured from so many seconds after it was made, however slow the rate and so old the rows."""
RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
READING_FAILS = frozenset(ReportReason) - {
    ReportReason.RELAY_UNAVAILABLE,
    ReportReason.RELAY_THROTTLING,
    ReportReason.SENDER_FAULT,
    ReportReason.LIMITER_UNAVAILABLE,
    ReportReason.LEDGER_REWOUND,
}
"""What may be wrong with the recipients' database; over as soon as a page was read."""

log = structlog.get_logger()


class Reader:
    """The candidates of a range, in the order in which they are to be claimed.

    First what a predecessor gave back (`returned`), then the rest of the range from its cursor. `read`
    reads until it has `AHEAD` candidates ready; `take` hands them out.
    """

    def __init__(
        self,
        *,
        returned: Positions,
        position: int,
        planned: int,
        page_keys: Callable[[Positions], Awaitable[list[PageKey]]],
        audience: Audience,
        database: Thread,
        suppression: Suppression,
        trouble: Trouble,
        retry: Retry,
    ) -> None:
        self.waiting = Waiting(retry)
        self._slices = self._cut(returned, position, planned)
        self._rows_at_once, self._octets = FIRST_ROWS, 0
        self._page_keys, self._audience, self._database, self._trouble = page_keys, audience, database, trouble
        self._suppression = suppression
        self._ready: deque[Candidate] = deque()
        self._given_back = returned
        self._sendable = 0
        self._exhausted = False
        self._changed = asyncio.Event()

    def _cut(self, returned: Positions, position: int, planned: int) -> Iterator[Positions]:
        while returned:
            part = returned.take(self._rows_at_once)
            returned = returned - part
            yield part
        while position < planned:
            end = min(planned, (position // PAGE_SIZE + 1) * PAGE_SIZE, position + self._rows_at_once)
            yield Positions.span(position, end)
            position = end

    async def read(self) -> None:
        """Keep candidates ready until the range is exhausted; run it as a task."""
        for part in self._slices:
            while self._full:
                self._changed.clear()
                await self._changed.wait()
            candidates = await self.candidates(part)
            if self._given_back:
                for candidate in candidates:
                    candidate.passed = candidate.position in self._given_back
            self._ready.extend(candidates)
            self._sendable += sum(map(self._is_sendable, candidates))
            octets = sum(c.octets for c in candidates)
            self._octets += octets
            self._rows_at_once = max(1, min(PAGE_SIZE, 4 * len(part), OCTETS_AHEAD * len(part) // (octets + 1)))
            self._changed.set()
        self._exhausted = True
        self._changed.set()

    async def candidates(self, positions: Positions) -> list[Candidate]:
        """Read the rows of some positions now, waiting out an absent database."""
        keys = await self._page_keys(positions)
        wanted = [k.key for k in keys if k.key is not None]
        rows = await self._rows(wanted) if wanted else {}
        found = []
        for k in keys:
            candidate = Candidate(k.position, k.key or "", k.attempt + 1, k.since)
            row = rows.get(k.key) if k.key is not None else None
            if isinstance(row, Row):
                candidate.row, candidate.octets = row, row.octets
                candidate.address_hash = self._suppression.hash_of(row.email)
            elif isinstance(row, UnusableRow):
                candidate.verdict = candidate.outcome(OutcomeKind.FAILED, code=row.code, reply=row.detail)
            else:
                code = SkipReason.ERASED if k.key is None else SkipReason.RECIPIENT_GONE
                candidate.verdict = candidate.outcome(OutcomeKind.SKIPPED, code=code)
            found.append(candidate)
        if reasons := await self._suppression.reasons(found):
            for candidate in found:
                self._suppression.decide(candidate, reasons)
        return found

    async def look_again(self) -> None:
        """Look up who was suppressed since its row was read, as long as it is not claimed; run it as a task."""
        while True:
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            reasons = await self._suppression.reasons(self._ready)
            for candidate in self._ready:  # only these: who was taken meanwhile may be on its way
                sendable, octets = self._is_sendable(candidate), candidate.octets
                if self._suppression.decide(candidate, reasons):
                    self._sendable -= sendable
                    self._octets -= octets
            self._changed.set()

    async def _rows(self, keys: list[str]) -> dict[str, Row | UnusableRow]:
        for delay in self._delays():
            try:
                rows = await self._database.run(self._audience.rows, keys)
            except PlanError as error:
                log.warning("recipients cannot be read", reason=error.reason, message=error.message)
                self._trouble.tell(error.reason, error.message)
                await asyncio.sleep(delay)
            else:
                self._trouble.over(*READING_FAILS)
                return rows
        raise AssertionError("unreachable: the delays never end")

    @staticmethod
    def _delays() -> Iterator[float]:
        yield from RETRY_SECONDS
        while True:
            yield RETRY_SECONDS[-1]

    @property
    def _full(self) -> bool:
        return len(self._ready) > AHEAD - PAGE_SIZE or self._octets > OCTETS_AHEAD

    def _is_sendable(self, candidate: Candidate) -> bool:
        return candidate.row is not None and not self.waiting.concerns(candidate)

    def limit(self, domains: frozenset[str]) -> None:
        """These domains have a limit of their own now."""
        if domains != self.waiting.limited:
            self.waiting.limited = domains
            self._sendable = sum(map(self._is_sendable, self._ready))

    @property
    def sendable(self) -> int:
        """Candidates that are ready and need a permit for any domain."""
        return self._sendable

    @property
    def only_limited(self) -> bool:
        """Whether whoever is left is of a domain with a limit: nobody else in this range is held up."""
        return self._exhausted and not self._sendable

    @property
    def exhausted(self) -> bool:
        """True once every candidate was taken."""
        return self._exhausted and not self._ready and not self.waiting

    async def wait(self) -> None:
        """Until a candidate is ready or there will be none."""
        while not self._ready and not self._exhausted and not self.waiting:
            self._changed.clear()
            await self._changed.wait()

    @property
    def passable(self) -> bool:
        """Whether those who are next need no permit for any domain: `take` passes them."""
        return bool(self._ready) and self._fate(self._ready[0]) is not Fate.STOPS

    def _fate(self, candidate: Candidate) -> Fate:
        """What becomes of the next candidate when there is no permit for it."""
        if candidate.row is None:
            return Fate.DECIDED
        if not self.waiting.concerns(candidate):
            return Fate.STOPS
        if candidate.passed or self.waiting.has_room(candidate):
            return Fate.WAITS
        others = self._sendable > 0 or (self._full and not self._exhausted)
        return Fate.PUT_OFF if others else Fate.STOPS

    def take(self, permits: Mapping[str, int]) -> Taken:
        """The next candidates: those for whom there are permits, and those between and after them that need none.

        Args:
            permits: by domain; `ANY` for those without a limit.
        """
        taken = Taken()
        for domain, count in permits.items():
            taken.returned += self.waiting.take(domain, count)
        left = permits.get(ANY, 0)
        while self._ready and len(taken.decided) + len(taken.waiting) < PAGE_SIZE:
            candidate = self._ready[0]
            match self._fate(candidate):
                case Fate.STOPS if left and self._is_sendable(candidate):
                    left -= 1
                    self._sendable -= 1
                    (taken.returned if candidate.passed else taken.now).append(candidate)
                case Fate.STOPS:
                    break
                case Fate.DECIDED:
                    (taken.returned if candidate.passed else taken.decided).append(candidate)
                case Fate.PUT_OFF:
                    self.waiting.put_off(candidate)
                    taken.decided.append(candidate)
                case Fate.WAITS:
                    if not candidate.passed:
                        taken.waiting.append(candidate)
                    self.waiting.add(candidate)
            self._ready.popleft()
            self._octets -= candidate.octets
        self._changed.set()
        return taken

    def put_off(self, *, also_again: bool) -> Taken:
        """Whoever is left waits for a domain for too long: defer those that can be.

        Args:
            also_again: also those that were deferred before.
        """
        taken = Taken(returned=self.waiting.put_off_all(also_again=also_again))
        while self._ready and len(taken.decided) < PAGE_SIZE and (also_again or self._ready[0].since is None):
            candidate = self._ready[0]
            if candidate.passed or candidate.verdict or not self.waiting.concerns(candidate):
                break
            self.waiting.put_off(candidate)
            self._octets -= self._ready.popleft().octets
            taken.decided.append(candidate)
        self._changed.set()
        return taken
