"""The owner's side: one range, one owner, one connection, one thread (LEDGER sections 3 to 5)."""

# ruff: noqa: S608 - what is put into these statements is constants of this package, values are bound

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg2
import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.contract.campaign import OnUncertain
from mailfleet_sender.errors import Fenced, LedgerRewound, LedgerUnavailable

from . import statements
from .change import RECORDABLE, Change, copy_outcomes, insert_late
from .connection import available, passes, settings_of, transaction, why
from .pages import Pages
from .positions import EMPTY, Positions
from .statements import RangeState
from .values import Ended, Leased

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from uuid import UUID

    from sqlalchemy import Connection, Engine, Row

    from .values import Outcome, PageKey, Timing

FIRST_PAUSE_SECONDS = 0.05
LATE_PATIENCE_SECONDS = 10.0
"""How long a fenced sender tries to leave its late outcomes: it was fenced, so the ledger was there."""

T = TypeVar("T")
log = structlog.get_logger()

_FIND = text("""
SELECT id, state, greatest(0, extract(epoch FROM lease_until - clock_timestamp()))::float AS seconds
FROM range WHERE run = :run AND wave = :wave AND idx = :idx
""")
_DETAILS = text(f"""
SELECT range.id, run, range.planned, plan, page_wave, first_page, range.state, epoch, seq, account, on_uncertain,
    {statements.STATE}
FROM range JOIN run ON run.id = range.run WHERE range.id = :range
""")


def boottime() -> float:
    """Seconds since boot, suspended time included (CLOCK_BOOTTIME): a frozen process sees its lease end."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class OwnedRange:
    """A range that this process owns. Made by `acquire`.

    Use it from one thread, except for what is read only (`state`, `lease_ends`, `troubled`, `ended`, the sets):
    these are replaced as wholes and may be read from any thread.

    A write returns when it is known to be committed. While the ledger is away it blocks and tries again,
    for outcomes must not be lost, with `troubled` set meanwhile: no mail may then be started. It raises
    `Fenced` when another owner or the operator has taken the range over (leave_late, then os._exit(75)),
    `LedgerRewound` when the ledger has lost commits, `LedgerUnavailable` only after `abandon`.

    Attributes:
        id, run, planned: the range, its run, and its number of positions.
        account: what is handed over is counted as its usage.
        owner, epoch, seq: what the compare and set compares; `seq` is the last one known to be committed.
        on_uncertain: what becomes of uncertain positions.
        state: position and sets, as they are in the row.
        ended: the range is Finished; there is nothing more to do.
        lease_ends: CLOCK_BOOTTIME seconds at which SMTP must stop.
        troubled: set while a write has no known outcome.
    """

    def __init__(self, engine: Engine, owner: UUID, timing: Timing, details: Row[Any], leased_at: float) -> None:
        """Not for callers: see `acquire`."""
        self.id: int = details.id
        self.run: int = details.run
        self.planned: int = details.planned
        self.account: str | None = details.account
        self.on_uncertain = OnUncertain(details.on_uncertain)
        self.owner = owner
        self.epoch: int = details.epoch
        self.seq: int = details.seq
        self.state = RangeState.read(details)
        self.ended = False
        self._released = False
        self.troubled = threading.Event()
        self._pages = Pages(details.run, details.plan, details.page_wave, details.first_page, details.planned)
        self._engine, self._timing, self._settings = engine, timing, text(settings_of(timing))
        self._connection: Connection | None = None
        self._abandoned = threading.Event()
        self._fenced: Fenced | None = None
        self._leased(leased_at)

    @classmethod
    def acquire(
        cls,
        engine: Engine,
        *,
        run: int,
        wave: int,
        index: int,
        owner: UUID,
        timing: Timing,
        account: str | None = None,
    ) -> OwnedRange | Leased | Ended:
        """Take the range of this wave and completion index, if nobody's lease holds on it.

        What a predecessor claimed and left without an outcome becomes uncertain here. Repeat it with the same
        `owner` after LedgerUnavailable: the same owner takes again at once, whatever became of the first COMMIT.
        What it will hand over is counted as usage of `account` (None: as of the last owner's).

        Raises:
            LedgerUnavailable: the ledger does not answer, or another takeover holds the row for too long.
            LedgerRewound: the ledger knows no such wave, though a Job was made for it.
        """
        asked_at = boottime()
        place = {"run": run, "wave": wave, "idx": index}
        with transaction(engine, timing) as connection:
            found = connection.execute(_FIND, place).one_or_none()
            if found is None:
                return cls._missing(connection, run, wave)
            taken = found.state == "Open" and statements.take(connection, found.id, owner, timing, account=account)
            details = connection.execute(_DETAILS, {"range": found.id}).one()
            if details.state != "Open":
                return Ended()
            if not taken:
                left = connection.execute(_FIND, place).one_or_none()
                return Leased(max(left.seconds or 0.0, 0.0) if left else 0.0)
        return cls(engine, owner, timing, details, asked_at)

    @staticmethod
    def _missing(connection: Connection, run: int, wave: int) -> Ended:
        known = connection.scalar(
            text("SELECT 1 FROM wave WHERE run = :run AND number = :wave"), {"run": run, "wave": wave}
        )
        if known:  # a Repair wave took the range over under another index
            return Ended()
        raise LedgerRewound(f"the ledger knows no wave {wave} of run {run}, though it was made before this pod")

    # --- what may be read from any thread -----------------------------------------------------------
    @property
    def position(self) -> int:
        """The cursor: positions below it were claimed or decided at some time."""
        return self.state.position

    @property
    def open(self) -> Positions:
        """Claimed, may have been sent, no outcome yet."""
        return self.state.open

    @property
    def returned(self) -> Positions:
        """Passed by the cursor, surely not sent."""
        return self.state.returned

    @property
    def resend(self) -> Positions:
        """Uncertain, to be sent once more."""
        return self.state.resend

    @property
    def resending(self) -> Positions:
        """Uncertain, being sent once more: at most one."""
        return self.state.resending

    # --- writes ---------------------------------------------------------------------------------------
    def claim(self, to: int, now: Positions, wait: Positions = EMPTY, decided: Sequence[Outcome] = ()) -> None:
        """Move the cursor to `to`: `now` may be sent from here on, `wait` has no permit, `decided` needs no sending.

        Raises:
            ValueError: the three are not exactly the positions from the cursor to `to`.
        """
        passed = Positions.of(o.position for o in decided)
        if (
            now | wait | passed != Positions.span(self.position, to)
            or len(now) + len(wait) + len(decided) != to - self.position
        ):
            raise ValueError(f"positions {self.position} to {to} are to be claimed, each once")
        self._write(Change(to, now=now, wait=wait, **self._outcomes(decided)))

    def claim_returned(self, now: Positions) -> None:
        """Claim positions that were given back: they may be sent from here on.

        Raises:
            ValueError: some of them are not in `returned`.
        """
        if now - self.returned:
            raise ValueError(f"{now - self.returned} was not given back")
        self._write(Change(self.position, now=now, taken=now))

    def claim_resend(self, position: int) -> bool:
        """Claim the one uncertain position that is sent once more; only with nothing else open.

        Returns:
            False: it may not be sent. The predecessor's late outcome has just settled it (`resend` says so).

        Raises:
            ValueError: it is not in `resend`, or something is open.
        """
        one = Positions.span(position, position + 1)
        if self.open or self.resending or one - self.resend:
            raise ValueError(f"{one} cannot be re-sent now")
        self._write(Change(self.position, one=one))
        return position in self.resending

    def record(self, outcomes: Sequence[Outcome]) -> None:
        """Record outcomes of any open positions, in any order; ends the range when it owes nothing.

        Under Resend a first `uncertain` of a key goes to `resend`, every other one is doubt for good.

        Raises:
            ValueError: a position is named twice or is not open, or a kind cannot be recorded.
        """
        if not outcomes:
            return
        done = Positions.of(o.position for o in outcomes)
        if len(done) != len(outcomes) or done - self.open - self.resending:
            raise ValueError(f"{done} are not all open, each once")
        self._write(Change(self.position, done=done, **self._outcomes(outcomes)))

    def drain(self) -> None:
        """Give back what is open and was surely not sent, and release the lease. Record everything else before."""
        self._write(None)

    def renew(self) -> None:
        """Lengthen the lease alone; tries once.

        Raises:
            LedgerUnavailable: it was not lengthened, as far as we know; other writes lengthen it too.
            Fenced, LedgerRewound: as every write.
        """
        if self._fenced:
            raise self._fenced
        if self.ended or self._released:
            return
        asked_at = boottime()
        try:
            with available():
                with self._begin() as connection:
                    row = connection.execute(statements.RENEW, self._identity()).one_or_none()
                if row is None:
                    self._inquire(Change(self.position))
        except LedgerUnavailable:
            self._disconnect()
            raise
        if row is not None:
            self.state = RangeState.read(row)
            self._leased(asked_at)

    def leave_late(self, outcomes: Sequence[Outcome]) -> None:
        """After `Fenced`: leave what is known for sure (sent, failed) to whoever settles the doubt.

        Raises:
            LedgerUnavailable: it could not be left within ten seconds.
        """
        deadline = boottime() + LATE_PATIENCE_SECONDS

        def leave() -> None:
            with self._begin() as connection:
                insert_late(connection, self.run, self.id, outcomes)

        self._patiently("late outcomes", leave, deadline=deadline)

    def recipients(self, positions: Positions) -> list[PageKey]:
        """The keys at some positions, in ascending order; blocks while the ledger is away, as writes do."""

        def read(numbers: Sequence[int]) -> Sequence[Row[Any]]:
            def once() -> Sequence[Row[Any]]:
                with self._begin() as connection:
                    return self._pages.read(connection, numbers)

            return self._patiently("pages", once)

        return self._pages.keys(positions, read)

    def abandon(self) -> None:
        """From another thread: a call that blocks while the ledger is away gives up with LedgerUnavailable."""
        self._abandoned.set()

    def close(self) -> None:
        """Give the connection back; the range itself is left as it is."""
        self._disconnect()

    # --- how a write comes to be known ------------------------------------------------------------------
    def _outcomes(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        if bad := {o.kind for o in outcomes} - RECORDABLE:
            raise ValueError(f"{sorted(bad)} cannot be recorded by an owner")
        lost = [o for o in outcomes if o.kind is OutcomeKind.UNCERTAIN]
        again = EMPTY
        if lost and self.on_uncertain is OnUncertain.RESEND:
            again = Positions.of(o.position for o in lost) & self.open
            again = again - self._patiently("doubt", lambda: self._doubted_before(again))
        return {
            "outcomes": tuple(outcomes),
            "again": again,
            "doubt": tuple(o for o in lost if o.position not in again),
        }

    def _doubted_before(self, positions: Positions) -> Positions:
        with self._begin() as connection:
            return statements.doubted_before(connection, self.id, positions)

    def _write(self, change: Change | None) -> None:
        """Commit a change (None: DRAIN) exactly once, whatever becomes of the connection."""
        if self._fenced:
            raise self._fenced
        if self.ended or self._released:
            raise ValueError(f"range {self.id} is no longer ours to write: it has ended or was drained")
        first_asked = boottime()
        tries = 0

        def until_known() -> float:
            nonlocal tries
            if tries and self._inquire(change):
                return first_asked  # whichever try it was, its lease is at least that long
            tries += 1
            asked_at = boottime()
            if self._attempt(change):
                return asked_at
            self.troubled.set()
            if self._inquire(change):
                return first_asked
            raise LedgerUnavailable(f"range {self.id}: the row was as before, yet the write did not hit it")

        asked_at = self._patiently("write", until_known)
        if not self._released:
            self._leased(asked_at)

    def _attempt(self, change: Change | None) -> bool:
        """One transaction. False: the compare and set hit no row, nothing was written."""
        ended = False
        with self._begin() as connection:
            if change is not None:
                # Before the row is locked: Postgres ends no session that is frozen in the middle of a COPY.
                copy_outcomes(connection, self.run, self.id, change.outcomes)
            if change is None:
                row = connection.execute(statements.DRAIN, self._identity()).one_or_none()
            elif change.one:
                row = self._absorb_first(connection, change)
            else:
                row = self._compare_and_set(connection, change)
            if row is None:
                connection.rollback()
                return False
            state = RangeState.read(row)
            if change is not None:
                change.write(connection, self.run, self.id, self.account)
                ended = state.owes_nothing(self.planned) and statements.finish(connection, self.id)
        self.seq, self.state, self.ended, self._released = self.seq + 1, state, ended, change is None
        return True

    def _compare_and_set(self, connection: Connection, change: Change) -> Row[Any] | None:
        values = {**self._identity(), **change.parameters(), "place": self.state.place}
        row = connection.execute(statements.CAS_IN_PLACE, values).one_or_none()
        return row or connection.execute(statements.CAS, values).one_or_none()

    def _absorb_first(self, connection: Connection, change: Change) -> Row[Any] | None:
        """The claim of a re-send: under the compare and set, late outcomes come first and may settle the position."""
        if self._compare_and_set(connection, Change(self.position)) is None:
            return None
        statements.absorb(connection, self.id)
        return connection.execute(statements.CLAIM_RESEND, {"range": self.id, "one": str(change.one)}).one()

    def _inquire(self, change: Change | None) -> bool:
        """Read the row on a connection known to be good: did the last write go through?

        Returns:
            True: it did, and our state is in step again. False: it did not, the same may be repeated.
        """
        with self._begin() as connection:
            row = connection.execute(statements.INQUIRE, {"range": self.id}).one_or_none()
        if row is None or row.epoch < self.epoch or row.seq < self.seq:
            raise LedgerRewound(f"range {self.id}: the ledger has lost commits that it had acknowledged")
        ends = change is None or change.finishes(self.state, self.planned)
        if (
            row.epoch == self.epoch
            and row.seq == self.seq + 1
            and (row.owner == self.owner or (ends and not row.owner))
        ):
            self.seq, self.state = row.seq, RangeState.read(row)
            self.ended, self._released = row.state != "Open", change is None
            return True
        if row.epoch == self.epoch and row.seq == self.seq and row.owner == self.owner and row.state == "Open":
            return False
        self._fenced = Fenced(f"range {self.id}: epoch {self.epoch} is over, the ledger is at {row.epoch}")
        raise self._fenced

    def _patiently(self, what: str, call: Callable[[], T], *, deadline: float | None = None) -> T:
        """Repeat `call` until it gives an answer; pauses grow from 50 ms to `backoff_seconds`."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                answer = call()
            except (SQLAlchemyError, psycopg2.Error, LedgerUnavailable) as error:
                self._disconnect()
                if not isinstance(error, LedgerUnavailable) and not passes(error):
                    raise
                self.troubled.set()
                log.warning("ledger: trying again", what=what, range=self.id, error=why(error))
                if self._abandoned.wait(pause) or (deadline and boottime() > deadline):
                    raise LedgerUnavailable(f"given up: {what} of range {self.id}") from error
                pause = min(pause * 2, self._timing.backoff_seconds)
            else:
                self.troubled.clear()
                return answer

    # --- connection ---------------------------------------------------------------------------------------
    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        """One transaction on the one connection, with the limits of every transaction."""
        if self._connection is None:
            self._connection = self._engine.connect()
        with self._connection.begin():
            self._connection.execute(self._settings)
            yield self._connection

    def _disconnect(self) -> None:
        """Drop the connection for good: what it was doing is not known."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()

    def _identity(self) -> dict[str, Any]:
        return {
            "range": self.id,
            "epoch": self.epoch,
            "seq": self.seq,
            "owner": self.owner,
            "lease": self._timing.lease_seconds,
        }

    def _leased(self, asked_at: float) -> None:
        self.lease_ends = asked_at + self._timing.lease_seconds - self._timing.margin_seconds
