"""The operator's side: from the first sight of a campaign to the end of its run.

Everything here is safe to repeat: a tick that died half-way is simply run again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, case, cast, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from mailfleet_sender.contract.accounts import RunState, WaveKind

from . import statements, waves
from .books import RUN_COLUMNS, Books, run_row, totals
from .connection import available, transaction
from .records import save_relay
from .tables import COUNTERS, deferral, range_, run, run_message, wave

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

    from mailfleet_sender.contract.accounts import EndReason, PauseReason
    from mailfleet_sender.contract.campaign import Campaign
    from mailfleet_sender.contract.relay import Relay

    from .values import RunRow

_CLOSE_UNTOUCHED = text("""
WITH closed AS (
    UPDATE range SET state = 'Closed', epoch = epoch + 1, seq = seq + 1, cancelled = planned
    WHERE id IN (SELECT id FROM range WHERE run = :run AND state = 'Open' AND seq = 0 ORDER BY id FOR UPDATE)
      AND state = 'Open' AND seq = 0
    RETURNING planned, from_verdict)
SELECT count(*) AS ranges, coalesce(sum(planned), 0) AS cancelled,
    coalesce(sum(planned) FILTER (WHERE from_verdict = 'deferred'), 0) AS deferred,
    coalesce(sum(planned) FILTER (WHERE from_verdict = 'failed'), 0) AS failed,
    coalesce(sum(planned) FILTER (WHERE from_verdict = 'uncertain'), 0) AS uncertain
FROM closed
""")


class Runs(Books):
    """Runs of campaigns, for the operator. Every method may raise `LedgerUnavailable`; repeat it at the next tick."""

    # --- before the start -----------------------------------------------------------------------------
    def ensure(
        self, namespace: str, name: str, run_id: str, campaign: Campaign, *, approved_step: int | None = None
    ) -> RunRow:
        """Find the run (namespace, name, run_id), or make it with the snapshot of `campaign`, state Planning.

        A run that is found is returned as it is: compare `definition_hash`, then `edit`, `amend` or refuse.
        What is approved when a run is made after another of the same campaign was approved for that one:
        `RunRow.approved_before` keeps it until `edit` or `amend` say something else.
        """
        other = run.alias()
        before = select(other.c.id).where(other.c.namespace == namespace, other.c.name == name)
        with transaction(self._engine) as connection:
            made = connection.scalar(
                upsert(run)
                .values(
                    namespace=namespace,
                    name=name,
                    run_id=run_id,
                    spec_hash=campaign.definition_hash(),
                    on_uncertain=campaign.on_uncertain.value,
                    approved_before=case((before.exists(), cast(approved_step, Integer))),
                )
                .on_conflict_do_nothing()
                .returning(run.c.id)
            )
            if made is not None:
                connection.execute(insert(run_message).values(run=made, body=campaign.snapshot()))
            query = select(*RUN_COLUMNS).where(run.c.namespace == namespace, run.c.name == name, run.c.run_id == run_id)
            return run_row(connection.execute(query).one())

    def edit(self, run_id: int, campaign: Campaign, *, approved_step: int | None = None) -> bool:
        """EDIT before the start: another audience or message, so it is planned anew.

        Returns:
            False: the run has started (or ended); it keeps its definition.
        """
        with transaction(self._engine) as connection:
            done = connection.execute(
                update(run)
                .where(run.c.id == run_id, run.c.state.in_((RunState.PLANNING, RunState.PLANNED)))
                .values(
                    spec_hash=campaign.definition_hash(),
                    on_uncertain=campaign.on_uncertain.value,
                    plan_wanted=run.c.plan_wanted + 1,
                    plan_id=None,
                    planned=0,
                    skipped=0,
                    approved_before=_still_before(approved_step),
                    state=RunState.PLANNING.value,
                )
            )
            if done.rowcount:
                _write_snapshot(connection, run_id, campaign)
            return bool(done.rowcount)

    def amend(self, run_id: int, campaign: Campaign, *, approved_step: int | None = None) -> bool:
        """Change what may change under one runId (retry, onUncertain), at any time.

        Returns:
            False: audience or message differ from the run's; nothing was changed.
        """
        with transaction(self._engine) as connection:
            done = connection.execute(
                update(run)
                .where(run.c.id == run_id, run.c.spec_hash == campaign.definition_hash())
                .values(on_uncertain=campaign.on_uncertain.value, approved_before=_still_before(approved_step))
            )
            if done.rowcount:
                _write_snapshot(connection, run_id, campaign)
            return bool(done.rowcount)

    def start(self, run_id: int, definition_hash: str, range_size: int) -> bool:
        """START: opens the run, with the waves of its plan and their ranges, in one transaction: the canary's steps, if
        it has any, and Main. All but the first are held until `pass_step`.

        Args:
            run_id: a run in state Planned.
            definition_hash: of the definition that `status.startTime` was written for.
            range_size: recipients a range; rounded up to whole pages.

        Returns:
            whether the run is open with this definition now; False: an edit came first.
        """
        with transaction(self._engine) as connection:
            opened = connection.execute(
                update(run)
                .where(
                    run.c.id == run_id,
                    run.c.state == RunState.PLANNED,
                    run.c.plan_id == run.c.plan_wanted,
                    run.c.spec_hash == definition_hash,
                )
                .values(state=RunState.OPEN.value, started_at=func.clock_timestamp())
                .returning(run.c.plan_id, (run.c.planned - run.c.skipped).label("keys"))
            ).one_or_none()
            if opened is None:
                again = select(run.c.id).where(
                    run.c.id == run_id, run.c.spec_hash == definition_hash, run.c.started_at.is_not(None)
                )
                return connection.scalar(again) is not None
            waves.insert_audience(connection, run_id, plan=opened.plan_id, keys=opened.keys, range_size=range_size)
            return True

    # --- canary steps ---------------------------------------------------------------------------------
    def end_step(self, run_id: int, step: int) -> bool:
        """Note that all ranges of a canary step have ended: from now on its pause counts.

        Returns:
            whether it was noted now; False: it was before, or something of it is still open.
        """
        with transaction(self._engine) as connection:
            return waves.end_step(connection, run_id, step)

    def pass_step(self, run_id: int, step: int) -> bool:
        """Let the wave after a canary step begin; it stays so.

        Returns:
            whether it was let now; False: it was before, the step has not ended, or the run is not open.
        """
        with transaction(self._engine) as connection:
            return waves.pass_step(connection, run_id, step)

    # --- pauses ---------------------------------------------------------------------------------------
    def pause(self, run_id: int, reason: PauseReason, message: str, at: datetime) -> bool:
        """Pause an open run until somebody says that the cause is mended.

        Args:
            run_id: a run in any state.
            reason: what paused it.
            message: cause and figures, for people; no address, no secret.
            at: when that happened, by the clock of whoever saw it.

        Returns:
            False: it is paused already, or not open.
        """
        paused = {"paused_at": at, "pause_reason": reason.value, "pause_message": message}
        with transaction(self._engine) as connection:
            done = connection.execute(
                update(run)
                .where(run.c.id == run_id, run.c.state == RunState.OPEN, run.c.pause_reason.is_(None))
                .values(paused)
            )
            return bool(done.rowcount)

    def resume(self, run_id: int, until: datetime) -> bool:
        """End a pause that began at `until` or before; when it began is remembered.

        Returns:
            False: it is not paused, or was paused later.
        """
        with transaction(self._engine) as connection:
            done = connection.execute(
                update(run)
                .where(run.c.id == run_id, run.c.pause_reason.is_not(None), run.c.paused_at <= until)
                .values(pause_reason=None, pause_message=None, resumed_at=func.clock_timestamp())
            )
            return bool(done.rowcount)

    # --- later waves ----------------------------------------------------------------------------------
    def retry_wave(self, run_id: int, range_size: int) -> int | None:
        """RETRY WAVE: what is due now becomes pages, ranges and a wave; at most one that has not ended.

        Returns:
            the wave's number; None: nothing is due, a Retry wave is still open, or the run is not.
        """
        with transaction(self._engine) as connection:
            return waves.retry_due(connection, run_id, range_size)

    def retry_failed(self, run_id: int, generation: int, codes: Sequence[str], range_size: int) -> int | None:
        """A Retry wave of those whose verdict is `failed` with one of `codes`; once a generation.

        It opens a Complete run again; attempts are counted on. `RunRow.retry_generation` says which generation
        was done last, `retried` to how many: one that was done, or came to nobody, or is lower, is not done again.

        Args:
            run_id: a run in state Open or Complete; any other is left alone.
            generation: what the user raises to retry.
            codes: basic (550), enhanced (5.1.1) or local codes (RowTooLarge); who is uncertain for good is sent
                once more only if they name `Uncertain`.
            range_size: recipients a range; rounded up to whole pages.

        Returns:
            the wave's number; None: nobody is to be retried now, or an earlier generation's wave has not ended.
        """
        with transaction(self._engine, self._timing) as connection:
            return waves.retry_failed(connection, run_id, generation, codes, range_size)

    def repair_wave(self, run_id: int, ended_wave: int) -> int | None:
        """REPAIR WAVE: the Open ranges of a wave whose Job has ended get a new wave, with their pages and sets.

        Returns:
            the new wave's number; None: that wave has no Open range, or the run is not open.
        """
        with transaction(self._engine) as connection:
            # The lock order is range, then run: the ranges are relabelled before the wave is written.
            ids = connection.scalars(
                select(range_.c.id)
                .where(range_.c.run == run_id, range_.c.wave == ended_wave, range_.c.state == "Open")
                .order_by(range_.c.id)
                .with_for_update()
            ).all()
            if not ids or waves.lock_open(connection, run_id) is None:
                return None
            number = waves.next_wave(connection, run_id)
            left = connection.execute(
                text("""
                    UPDATE range r SET wave = :wave, idx = n.idx
                    FROM (SELECT id, row_number() OVER (ORDER BY id) - 1 AS idx
                          FROM unnest(CAST(:ids AS bigint[])) AS id) n
                    WHERE r.id = n.id RETURNING r.planned - r.pos + width(r.returned)
                """),
                {"wave": number, "ids": list(ids)},
            ).scalars()
            row = {"run": run_id, "number": number, "kind": WaveKind.REPAIR.value, "ranges": len(ids)}
            connection.execute(insert(wave).values(**row, planned=sum(left)))
            return number

    # --- ranges that nobody owns ------------------------------------------------------------------------
    def settle(self, range_id: int) -> bool:
        """SETTLE one range: what its dead owner left open becomes uncertain (or is sent once more, under Resend).

        Returns:
            False: it has ended, or a lease holds.
        """
        with transaction(self._engine, self._timing) as connection:
            return statements.take(connection, range_id, None, self._timing)

    def settle_all(self, run_id: int) -> int:
        """SETTLE every range of a run whose owner's lease has ended, each in a transaction of its own.

        Returns:
            how many were settled.
        """
        return sum(self.settle(i) for i in self.unowned([run_id]).get(run_id, ()))

    def absorb_late(self, run_id: int) -> int:
        """ABSORB late outcomes of ranges that have ended, each range in a transaction of its own.

        Returns:
            how many recipients are no longer uncertain.
        """
        query = text("SELECT DISTINCT l.range FROM late_outcome l JOIN range r ON r.id = l.range"
                     " WHERE r.run = :run AND r.state <> 'Open' ORDER BY 1")  # fmt: skip
        with available(), self._engine.connect() as connection:
            ids = connection.scalars(query, {"run": run_id}).all()
        return sum(self._absorb(i) for i in ids)

    def _absorb(self, range_id: int) -> int:
        with transaction(self._engine, self._timing) as connection:
            ended = select(range_.c.id).where(range_.c.id == range_id, range_.c.state != "Open").with_for_update()
            return statements.absorb(connection, range_id) if connection.scalar(ended) is not None else 0

    # --- the end ------------------------------------------------------------------------------------------
    def complete(self, run_id: int) -> bool:
        """End a run of which nothing is owed: no Open range, deferred = remaining = 0. One that is being closed, so
        that somebody counts as cancelled, is never complete.

        Returns:
            whether it is Complete now.
        """
        with transaction(self._engine) as connection:
            if waves.lock_open(connection, run_id) is None:
                return connection.scalar(select(run.c.state).where(run.c.id == run_id)) == RunState.COMPLETE
            total = totals(connection, [run_id])[run_id]
            if total.deferred or total.remaining or total.cancelled or _any_open(connection, run_id):
                return False
            assert total.adds_up, total
            _end(connection, run_id, RunState.COMPLETE)
            return True

    def close(self, run_id: int, into: RunState, reason: EndReason | None = None, *, fence: bool = False) -> bool:
        """CLOSE, as far as it can be done now: call it at each tick until it returns True.

        Ranges never claimed are closed at once, unowned ones are settled and closed; a leased one is waited out
        (drain its pod first). When none is open, what is deferred becomes cancelled and the run ends.

        Args:
            run_id: a run in any state.
            into: Cancelled, Superseded or Failed.
            reason: why it failed; kept with the run.
            fence: leases are not waited out: what holds them cannot be drained.

        Returns:
            whether the run has ended (in whichever state it was ended first).
        """
        with transaction(self._engine, self._timing) as connection:
            _close_untouched(connection, run_id)
        for range_id in self.unowned([run_id], idle=True, leased=fence).get(run_id, ()):
            with transaction(self._engine, self._timing) as connection:
                statements.close(connection, range_id, self._timing, fence=fence)
        with transaction(self._engine) as connection:
            return _cancel_rest(connection, run_id, into, reason)

    def supersede(self, namespace: str, name: str, but: str, *, fence: bool = False) -> bool:
        """Close every run of this name that has not ended, except the one with run id `but`, as Superseded.

        See `close` for `fence`.

        Returns:
            whether none of them is left open: only then may the new run start.
        """
        older = [r for r in self.find(namespace, name) if r.run_id != but and r.ended_at is None]
        ended = [
            self.close(r.id, RunState.SUPERSEDED, fence=fence) for r in older
        ]  # each of them, whatever the first says
        return all(ended)

    # --- relays -------------------------------------------------------------------------------------------
    def save_relay(self, relay: Relay) -> int:
        """See `records.save_relay`."""
        return save_relay(self._engine, relay)


def _still_before(approved_step: int | None) -> ColumnElement[int]:
    """An approval that is older than its run stays so until another one, or none, was seen."""
    return case((run.c.approved_before == approved_step, run.c.approved_before))


def _write_snapshot(connection: Connection, run_id: int, campaign: Campaign) -> None:
    connection.execute(update(run_message).where(run_message.c.run == run_id).values(body=campaign.snapshot()))


def _any_open(connection: Connection, run_id: int) -> bool:
    query = select(range_.c.id).where(range_.c.run == run_id, range_.c.state == "Open").limit(1)
    return connection.scalar(query) is not None


def _end(connection: Connection, run_id: int, state: RunState, **changes: Any) -> None:
    values = {"state": state.value, "ended_at": func.clock_timestamp(), **changes}
    connection.execute(update(run).where(run.c.id == run_id).values(values))


def _close_untouched(connection: Connection, run_id: int) -> None:
    """CLOSE of never-claimed ranges, in one statement, and their FOLD."""
    closed = connection.execute(_CLOSE_UNTOUCHED, {"run": run_id}).one()
    if closed.ranges:
        connection.execute(
            update(run)
            .where(run.c.id == run_id)
            .values(
                cancelled=run.c.cancelled + closed.cancelled,
                deferred=run.c.deferred - closed.deferred,
                failed=run.c.failed - closed.failed,
                uncertain=run.c.uncertain - closed.uncertain,
            )
        )


def _cancel_rest(connection: Connection, run_id: int, into: RunState, reason: EndReason | None) -> bool:
    """CANCEL's end, under the run's lock: deferrals become cancelled, the run ends."""
    row = connection.execute(
        select(run.c.state, *(run.c[name] for name in COUNTERS), run.c.planned, run.c.ended_at)
        .where(run.c.id == run_id)
        .with_for_update()
    ).one()
    if row.ended_at is not None:
        return True
    if row.state != RunState.OPEN:  # never started: the whole audience is cancelled
        _end(connection, run_id, into, cancelled=row.planned - row.skipped, end_reason=reason)
        return True
    if _any_open(connection, run_id):
        return False
    waiting = connection.execute(deferral.delete().where(deferral.c.run == run_id)).rowcount
    _end(
        connection, run_id, into, deferred=row.deferred - waiting, cancelled=row.cancelled + waiting, end_reason=reason
    )
    return True
