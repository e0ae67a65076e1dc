"""Permit, claim, send, record: the loop of one sender over one range (DESIGN section 5)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import structlog

from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.errors import LimiterUnavailable, SenderFault
from mailfleet_sender.ledger import Positions, boottime
from mailfleet_sender.limiter import ANY, Appetite, Refusal, Why

from .dispatch import Dispatch, Permit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mailfleet_sender.contract.campaign import Retry
    from mailfleet_sender.ledger import OwnedRange
    from mailfleet_sender.limiter import Limiter, Permits
    from mailfleet_sender.message import Composer

    from .candidate import Candidate
    from .pool import Pool
    from .reader import Reader
    from .recorder import Recorder
    from .tally import Tally
    from .threads import Thread
    from .trouble import Trouble
    from .waiting import Taken

CLAIM_AHEAD_SECONDS = 0.05
"""A slice of a batch is claimed this long before its first slot: a claim commits in a few milliseconds."""
SLICE_SECONDS, SLICE_ROWS = 0.1, 50
"""What is claimed at once: a tenth of a second's sending, or so few that fewer would not be worth a commit."""
BATCH_SECONDS, BACKLOG_SECONDS = 0.04, 0.02
"""A sender that cannot keep up with its permits asks for so many as it sends in the first time and the span of the last
batch, and not before what it holds is sent in the second: longer than a claim takes; both together are shorter than
the 100 ms that a permit holds."""
SPAN_SECONDS = 0.5
"""Of the slots of a batch, before the first one came (LIMITER)."""
LIMITER_RETRY_SECONDS = 0.25
LIMITER_PATIENCE_SECONDS = 3.0
"""Redis away for longer than this is told to the operator."""
RESENDS = 50
"""Permits asked for at once when uncertain recipients are sent again; half a second divided by this is one's time."""
TAIL_SECONDS, TAIL_SHARE = 15.0, 0.05
"""How long a sender waits for domains when nobody else is left in its range: a twentieth of the time that it took, or
of the five minutes that a range is meant to take. Other ranges may wait for the sender's place."""

log = structlog.get_logger()


@dataclass(order=True, slots=True)
class _Slice:
    """Permits whose recipients are claimed together, and when the first may be used."""

    start: float
    permits: list[Permit] = field(compare=False)


class Delivery:
    """Sends the rest of a range that this process owns.

    `run` ends when the range has, or when `stop` was called and all is accounted for. A claimed recipient
    is always in exactly one place: the dispatch, the claims that wait for a new permit, or the recorder.

    Attributes:
        fault: why the relay refuses this sender, if it does.
    """

    def __init__(
        self,
        *,
        owned: OwnedRange,
        ledger: Thread,
        reader: Reader,
        limiter: Limiter,
        pool: Pool,
        composer: Composer,
        recorder: Recorder,
        retry: Retry,
        trouble: Trouble,
        progress: asyncio.Event,
        tally: Tally,
    ) -> None:
        self._owned, self._ledger, self._reader, self._limiter = owned, ledger, reader, limiter
        self._pool, self._recorder, self._trouble = pool, recorder, trouble
        self._retry, self._progress, self._tally = retry, progress, tally
        self._appetite = Appetite()
        self._slices: asyncio.PriorityQueue[_Slice] = asyncio.PriorityQueue()
        self._booked: Counter[str] = Counter()
        self._span = SPAN_SECONDS
        self._claiming = 0
        self._began = time.monotonic()
        self._tail_began: float | None = None
        self._claimed: deque[Candidate] = deque()
        self._stop = asyncio.Event()
        self._broken: asyncio.Queue[BaseException] = asyncio.Queue()
        self._dispatch = Dispatch(
            self,
            pool=pool,
            limiter=limiter,
            composer=composer,
            recorder=recorder,
            appetite=self._appetite,
            retry=retry,
            progress=progress,
            tally=tally,
        )
        self.fault: SenderFault | None = None

    # --- from outside ---------------------------------------------------------------------------
    def stop(self) -> None:
        """Begin no more mail. What is in flight ends by itself, or by `abort`."""
        self._stop.set()
        self._progress.set()

    async def run(self) -> None:
        """Send until the range has ended or `stop`.

        Raises:
            Fenced, LedgerRewound: from the ledger; the caller ends the process.
        """
        claims = asyncio.create_task(self._claim_slices())
        worker = asyncio.create_task(self._work())
        stopped = asyncio.create_task(self._stop.wait())
        broken = asyncio.create_task(self._broken.get())
        tasks = {claims, worker, stopped, broken}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if broken in done:
                raise broken.result()
            for task in done - {stopped}:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def in_flight_ended(self) -> None:
        """Wait for the transactions that have begun."""
        await self._dispatch.in_flight_ended()

    async def leave(self) -> None:
        """Tell the limiter what is left to tell; the other pods share what this one had."""
        with contextlib.suppress(LimiterUnavailable):
            await self._limiter.leave()

    def abort(self) -> None:
        """Cut the transactions that have begun; those without a reply after the dot are uncertain."""
        self._pool.abort()

    @property
    def may_send(self) -> bool:
        """The lease holds by our own clock, no write is in doubt, and nobody asked us to stop."""
        return boottime() < self._owned.lease_ends and not self._owned.troubled.is_set() and not self._stop.is_set()

    # --- permits and claims -----------------------------------------------------------------------
    async def _work(self) -> None:
        while not self._owned.ended:
            try:
                await self._pool.reachable()
            except SenderFault as error:
                self.refused(error)
                return
            if self._claimed or not self._reader.exhausted:
                if not self._claimed:
                    await self._reader.wait()
                await self._ask()
            elif self._outstanding:
                await self._wait_for_progress()
            elif self._owned.resend:
                await self._send_again()
            else:
                raise AssertionError(f"range {self._owned.id} owes nothing and has not ended")

    @property
    def _outstanding(self) -> int:
        return self._claiming + len(self._owned.open) + len(self._owned.resending) + self._recorder.pending

    async def _wait_for_progress(self) -> None:
        self._progress.clear()
        await self._progress.wait()

    async def _ask(self) -> None:
        """Ask for one batch of permits, and wait for its first slot: two batches at most are held (LIMITER, rule 1)."""
        self._reader.limit(self._limiter.limited)
        ready = self._ready()
        if ready[ANY] <= 0 and self._reader.passable:
            await self._claim({})
            return
        if self._waits_too_long() and await self._put_off():
            return
        want = min(self._appetite.want, sum(ready.values()))
        want = min(want, max(self._pool.at_once, int(self._per_second * (self._span + BATCH_SECONDS))))
        if want <= 0:
            await self._wait_for_progress()
            return
        permits = await self._reserve(want, ready)
        if permits is None:
            return
        self._appetite.granted(permits.count)
        self._reader.waiting.granted(ready, permits)
        step = max(SLICE_ROWS, round(SLICE_SECONDS / max(permits.spacing_seconds, 1e-6)))
        slots = permits.slots()
        self._span = max(slots[-1].start - slots[0].start, permits.count * permits.spacing_seconds)
        self._booked.update(slot.domain for slot in slots)
        for first in range(0, len(slots), step):
            part = [Permit(slot, permits.taken) for slot in slots[first : first + step]]
            self._slices.put_nowait(_Slice(part[0].slot.start, part))
        self._tally.waited_seconds += max(0.0, slots[0].start - time.monotonic())
        await self._until(slots[0].start)
        future = len(slots) * max(0.0, 1 - BACKLOG_SECONDS / self._span) if self._span else 0.0
        while self._dispatch.overdue + self._booked.total() - future > BACKLOG_SECONDS * self._per_second:
            await self._wait_for_progress()

    @property
    def _per_second(self) -> float:
        """What relay and process can do."""
        return min(self._pool.per_second, self._dispatch.pace.per_second)

    def _ready(self) -> Counter[str]:
        """Recipients for whom there is no permit yet, by domain."""
        ready = Counter(self._reader.waiting.counts())
        ready[ANY] += self._reader.sendable
        ready.update(self._domain(candidate) for candidate in self._claimed)
        ready.subtract(self._booked)
        return Counter({ANY: max(0, ready[ANY])}) | ready

    def _domain(self, candidate: Candidate) -> str:
        return candidate.domain if self._reader.waiting.concerns(candidate) else ANY

    def _waits_too_long(self) -> bool:
        """Whether all that is left waits for a domain, and has done so for as long as it may."""
        if self._claimed or not self._reader.only_limited:
            self._tail_began = None
            return False
        now = time.monotonic()
        self._tail_began = self._tail_began or now
        return now - self._tail_began > self._tail_seconds

    @property
    def _tail_seconds(self) -> float:
        return max(TAIL_SECONDS, TAIL_SHARE * (time.monotonic() - self._began))

    async def _put_off(self) -> bool:
        """Nobody in this range is held up, but other ranges may be: defer those who wait.

        Those who were deferred before wait for as long as it would take to come again.

        Returns:
            whether there were any.
        """
        waited = time.monotonic() - (self._tail_began or time.monotonic())
        also_again = waited > max(self._tail_seconds, self._retry.initial_delay_seconds)
        taken = self._reader.put_off(also_again=also_again)
        await self._write_claim(taken)
        return bool(taken.returned or taken.decided)

    async def _claim_slices(self) -> None:
        """Claim each slice of a batch just before its first slot, and set a timer for each recipient of it."""
        while True:
            part = await self._slices.get()
            await self._until(part.start - CLAIM_AHEAD_SECONDS)
            counts = Counter(permit.slot.domain for permit in part.permits)
            self._booked.subtract(counts)
            if self.may_send and len(self._owned.open) - len(self._claimed) < self._pool.per_second:
                found = self._claimed_before(counts)
                if missing := +(counts - Counter({domain: len(queue) for domain, queue in found.items()})):
                    for candidate in await self._claim(missing):
                        found[self._domain(candidate)].append(candidate)
                for permit in part.permits:
                    if queue := found[permit.slot.domain]:
                        self._dispatch.at(permit, queue.popleft())
                    else:
                        self._dispatch.unused(permit)
                self._claimed.extend(chain.from_iterable(found.values()))
            else:
                for permit in part.permits:
                    self._dispatch.lapse(permit)
            self._progress.set()

    def _claimed_before(self, counts: Mapping[str, int]) -> dict[str, deque[Candidate]]:
        """Of those that are claimed and lack a permit, as many of each domain as there are permits."""
        found: dict[str, deque[Candidate]] = defaultdict(deque)
        left: deque[Candidate] = deque()
        for candidate in self._claimed:
            domain = self._domain(candidate)
            (found[domain] if len(found[domain]) < counts.get(domain, 0) else left).append(candidate)
        self._claimed = left
        return found

    async def _reserve(self, want: int, ready: Mapping[str, int]) -> Permits | None:
        if not self.may_send:
            await asyncio.sleep(LIMITER_RETRY_SECONDS)
            return None
        since = time.monotonic()
        while True:
            try:
                answer = await self._limiter.reserve(want, ready)
            except LimiterUnavailable as error:
                if time.monotonic() - since > LIMITER_PATIENCE_SECONDS:
                    self._trouble.tell(ReportReason.LIMITER_UNAVAILABLE, str(error))
                await asyncio.sleep(LIMITER_RETRY_SECONDS)
            else:
                break
        self._trouble.over(ReportReason.LIMITER_UNAVAILABLE)
        self._pool.allow(answer.connections)
        if isinstance(answer, Refusal):
            self._tally.refused[answer.why.value] += 1
            if answer.why is Why.DOMAIN:
                self._reader.waiting.refused(ready)
            await asyncio.sleep(answer.after_seconds)
        else:
            self._tally.granted += answer.count
        self._tally.waited_seconds += time.monotonic() - since
        return None if isinstance(answer, Refusal) else answer

    async def _claim(self, permits: Mapping[str, int]) -> list[Candidate]:
        """Claim the next candidates: those with `permits`, and those between that need none."""
        taken = self._reader.take(permits)
        await self._write_claim(taken)
        return [c for c in (*taken.returned, *taken.now) if c.verdict is None]

    async def _write_claim(self, taken: Taken) -> None:
        count = len(taken.returned) + len(taken.now) + len(taken.decided)
        self._claiming += count  # no longer with the reader, and not yet open
        began = time.monotonic()
        if taken.returned:
            await self._ledger.run(self._owned.claim_returned, Positions.of(c.position for c in taken.returned))
            self._recorder.add(*[c.verdict for c in taken.returned if c.verdict])
        if taken.passes:
            await self._ledger.run(
                self._owned.claim,
                taken.passes,
                Positions.of(c.position for c in taken.now),
                wait=Positions.of(c.position for c in taken.waiting),
                decided=[c.verdict for c in taken.decided if c.verdict],
            )
        self._claiming -= count
        if count:
            self._tally.commits.took(time.monotonic() - began)
            self._tally.decided(c.verdict.kind for c in chain(taken.returned, taken.decided) if c.verdict)
        self._progress.set()

    async def _send_again(self) -> None:
        """Send uncertain recipients once more, one at a time: a row that kills the sender must not be copied for ever.

        The permits come in batches; each recipient is claimed alone, and the next one only when that is recorded.
        """
        candidates = await self._reader.candidates(self._owned.resend.take(RESENDS))
        self._reader.limit(self._limiter.limited)
        queues: dict[str, deque[Candidate]] = defaultdict(deque)
        for candidate in candidates:
            queues[self._domain(candidate)].append(candidate)
        permits = await self._reserve(len(candidates), {domain: len(queue) for domain, queue in queues.items()})
        if permits is None:
            return
        left = deque(Permit(slot, permits.taken) for slot in permits.slots())
        try:
            while left and await self._send_one_again(left.popleft(), queues):
                pass
        finally:
            for permit in left:
                self._dispatch.unused(permit)

    async def _send_one_again(self, permit: Permit, queues: Mapping[str, deque[Candidate]]) -> bool:
        """With one permit; whether the next one may be used."""
        await self._until(permit.slot.start)
        if time.monotonic() > permit.slot.end or not self.may_send or not queues[permit.slot.domain]:
            self._dispatch.lapse(permit)
            return False
        candidate = queues[permit.slot.domain].popleft()
        if not await self._ledger.run(self._owned.claim_resend, candidate.position):
            self._dispatch.unused(permit)
            return True  # a late outcome of the predecessor has settled it
        if candidate.verdict:
            self._dispatch.unused(permit)
            self._recorder.add(candidate.verdict)
        else:
            self._dispatch.at(permit, candidate)
        while self._outstanding and not self._claimed:
            if self._recorder.pending:
                await self._recorder.flush()
            else:
                await self._wait_for_progress()
        return not self._claimed  # it found no connection in time: `_ask` gets it another permit

    async def _until(self, moment: float) -> None:
        if (delay := moment - time.monotonic()) > 0:
            await asyncio.sleep(delay)

    # --- what the dispatch tells ------------------------------------------------------------------
    def put_back(self, candidate: Candidate) -> None:
        """It is claimed and needs another permit."""
        self._claimed.append(candidate)
        self._progress.set()

    def broken(self, error: Exception) -> None:
        """Something that must not happen: `run` raises it."""
        self._broken.put_nowait(error)

    def refused(self, fault: SenderFault) -> None:
        """The relay refuses the sender itself: stop at once, burn nobody."""
        if self.fault is None:
            self.fault = fault
            self._trouble.tell(ReportReason.SENDER_FAULT, str(fault))
            log.error("the relay refuses this sender", reason=str(fault))
        self.stop()
