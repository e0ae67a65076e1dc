"""From the slot of a permit to the verdict: claimed recipients on their way through the connections.

All of them wait in one queue. A connection takes the next one at the moment when it can write it, so nobody waits
behind a connection that is slow, and whether the permit is still good is known right before it is used.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from datetime import UTC, datetime
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.errors import ComposeError, RelayUnavailable, SenderFault
from mailfleet_sender.smtp import VerdictKind

from .judging import outcome_of, said, try_again
from .pace import Pace
from .threads import give_way

if TYPE_CHECKING:
    from mailfleet_sender.contract.campaign import Retry
    from mailfleet_sender.limiter import Appetite, Limiter, Slot
    from mailfleet_sender.message import Composer
    from mailfleet_sender.smtp import Connection, Verdict

    from .candidate import Candidate
    from .pool import Pool
    from .recorder import Recorder
    from .tally import Tally


GIVE_WAY_SECONDS = 0.0005
"""While mails are on their way, the threads may have the interpreter so often."""


class Permit(NamedTuple):
    """One permit: when it may be used and for which domain, and where it was taken from the quota."""

    slot: Slot
    taken: str


class _Due(NamedTuple):
    """A claimed recipient and its permit; in the order of `start`, and of `number`, of which there are no two alike."""

    start: float
    number: int
    permit: Permit
    candidate: Candidate


class Claims(Protocol):
    """Whose recipients these are."""

    @property
    def may_send(self) -> bool:
        """Whether a mail may begin now."""

    def put_back(self, candidate: Candidate) -> None:
        """It is claimed and needs another permit."""

    def refused(self, fault: SenderFault) -> None:
        """The relay refuses the sender itself."""

    def broken(self, error: Exception) -> None:
        """Something that must not happen."""


class Dispatch:
    """A recipient given to `at` is in exactly one place until it is recorded or put back: the heap of those whose slot
    is to come, the queue of those that are due, or a connection.

    Attributes:
        pace: how fast it is.
    """

    def __init__(
        self,
        claims: Claims,
        *,
        pool: Pool,
        limiter: Limiter,
        composer: Composer,
        recorder: Recorder,
        appetite: Appetite,
        retry: Retry,
        progress: asyncio.Event,
        tally: Tally,
    ) -> None:
        self._claims, self._pool, self._limiter = claims, pool, limiter
        self._composer, self._recorder, self._appetite = composer, recorder, appetite
        self._retry, self._progress, self._tally = retry, progress, tally
        self._numbers = count()
        self._later: list[_Due] = []
        self._due: deque[_Due] = deque()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._gives_way = False
        self.pace = Pace(time.monotonic())
        pool.listen(has_room=self._has_room, opened=self._fill, failed=self._cannot_connect)

    def at(self, permit: Permit, candidate: Candidate) -> None:
        """Begin a claimed recipient's transaction at its slot."""
        start = permit.slot.start
        heappush(self._later, _Due(start, next(self._numbers), permit, candidate))
        if self._timer is None or start < self._timer_at:
            self._set_timer()

    def unused(self, permit: Permit) -> None:
        """Its mail surely was not handed over."""
        self._limiter.report.give_back(permit.taken)

    def lapse(self, permit: Permit) -> None:
        """It was not used in time."""
        self._tally.lapsed += 1
        self.unused(permit)

    @property
    def overdue(self) -> int:
        """How many could begin now if a connection had room."""
        return len(self._due)

    async def in_flight_ended(self) -> None:
        """Wait for the transactions that have begun."""
        await self._idle.wait()

    # --- time --------------------------------------------------------------------------------------
    def _set_timer(self) -> None:
        """For the next slot, and for the moment when the permit of whoever waits longest is over."""
        moment = min(self._later[0].start if self._later else inf, self._due[0].permit.slot.end if self._due else inf)
        if moment == inf:
            return
        if self._timer is not None:
            if self._timer_at <= moment:
                return
            self._timer.cancel()
        self._timer_at = moment
        self._timer = self._loop.call_later(max(0.0, moment - time.monotonic()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = time.monotonic()
        while self._later and self._later[0].start <= now:
            self._due.append(heappop(self._later))
        self._fill()
        self._set_timer()

    # --- into the connections ------------------------------------------------------------------------
    def _fill(self) -> None:
        """Give what is due to whichever connection has room."""
        try:
            while (due := self._next()) is not None:
                connection = self._pool.take()
                if connection is None:
                    self._nowhere()
                    return
                self._due.popleft()
                self._begin(connection, due)
        except Exception as error:  # noqa: BLE001 - called by the event loop: whoever owns the claims must hear of it
            self._claims.broken(error)

    def _has_room(self, connection: Connection) -> None:
        """A connection has heard a reply: what is due goes out with its next write."""
        try:
            while (due := self._next()) is not None:
                self._due.popleft()
                self._begin(connection, due)
                if not connection.room:
                    return
        except Exception as error:  # noqa: BLE001 - as above
            self._claims.broken(error)

    def _next(self) -> _Due | None:
        """The first one whose permit may be used now; those before it are put back."""
        now = time.monotonic()
        self.pace.look(now)
        while self._due:
            due = self._due[0]
            late = now > due.permit.slot.end
            if not late and self._claims.may_send:
                return due
            if late and not self._pool.opening:
                self._appetite.starved()
            self._due.popleft()
            self.lapse(due.permit)
            self._claims.put_back(due.candidate)
        self.pace.nothing_waits()
        return None

    def _nowhere(self) -> None:
        """No connection has room for what is due."""
        if self._pool.down:
            while self._due:
                due = self._due.popleft()
                self.unused(due.permit)
                self._claims.put_back(due.candidate)
        else:
            self._pool.more(len(self._due))
            self._set_timer()

    def _begin(self, connection: Connection, due: _Due) -> None:
        candidate = due.candidate
        assert candidate.row is not None
        try:
            mail = self._composer.compose(candidate.row, key=candidate.key, eight_bit=connection.eight_bit)
        except ComposeError as error:
            self.unused(due.permit)
            self._limiter.report.failed += 1
            self._tally.decided((OutcomeKind.FAILED,))
            self._recorder.add(candidate.outcome(OutcomeKind.FAILED, code=error.code, reply=error.detail))
            self._progress.set()
            return
        self.pace.began()
        self._in_flight += 1
        self._idle.clear()
        if not self._gives_way:
            self._gives_way = True
            self._loop.call_later(GIVE_WAY_SECONDS, self._give_way)
        connection.submit(mail, partial(self._ended, connection, due, time.monotonic()))

    def _give_way(self) -> None:
        self._gives_way = False
        give_way()

    # --- and back --------------------------------------------------------------------------------------
    def _ended(self, connection: Connection, due: _Due, began: float, verdict: Verdict) -> None:
        try:
            if not verdict.handed_over:
                self.unused(due.permit)
            self._judge(due.candidate, verdict, time.monotonic() - began)
        except Exception as error:  # noqa: BLE001 - called by the event loop: whoever owns the claims must hear of it
            self._claims.broken(error)
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()
        self._progress.set()
        if self._pool.done_with(connection):
            self._fill()

    def _judge(self, candidate: Candidate, verdict: Verdict, seconds: float) -> None:
        """What the relay's answer means for this recipient."""
        self._limiter.report.count(
            verdict.outcome,
            policy=verdict.policy,
            throttled=verdict.throttled,
            exhausted=verdict.quota_exhausted,
        )
        if verdict.kind is VerdictKind.SENDER_FAULT:
            self._claims.put_back(candidate)
            self._claims.refused(SenderFault(said(verdict)))
            return
        if verdict.kind is VerdictKind.RETRY:
            self._pool.failed(f"the relay takes no mail now: {said(verdict)}", throttled=verdict.throttled)
            if try_again(candidate, verdict):
                self._claims.put_back(candidate)
                return
        else:
            self._pool.succeeded(seconds)
            self._tally.transactions.took(seconds)
        outcome = outcome_of(candidate, verdict, self._retry, datetime.now(UTC))
        self._tally.judged(candidate.domain, outcome.kind)
        self._recorder.add(outcome)

    def _cannot_connect(self, error: Exception) -> None:
        if isinstance(error, SenderFault):
            self._claims.refused(error)
        elif not isinstance(error, RelayUnavailable):
            self._claims.broken(error)
        self._fill()
