"""Cancel and end time: whatever state its ranges are in, and whoever still works on them, a run ends in exact books."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from books import sample
from ledgers import PAGE, Desk, claim, outcomes, send_all
from mailfleet_sender.contract.accounts import EndReason, OutcomeKind, RunState
from mailfleet_sender.contract.campaign import OnUncertain
from mailfleet_sender.errors import Fenced
from mailfleet_sender.ledger import Outcome, OwnedRange, Positions, Timing
from services import wait_for

if TYPE_CHECKING:
    from services import PostgresServer

KINDS = [OutcomeKind.SENT, OutcomeKind.FAILED, OutcomeKind.UNCERTAIN, OutcomeKind.DEFERRED]
STATES = ("untouched", "leased", "drained", "killed", "killed twice", "finished", "retried")


def some(data: st.DataObject, owned: OwnedRange) -> list[Outcome]:
    """Claim some, know the outcomes of some of them; record none."""
    now = claim(owned, data.draw(st.integers(1, 200), "claimed"))
    known = now.take(data.draw(st.integers(0, len(now)), "known"))
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4), "kinds")
    made = []
    for i, kind in enumerate(kinds):
        part = Positions.of(list(known)[i :: len(kinds)])
        made += outcomes(owned, part, kind, retry_after_seconds=0)
    return made


def bring(desk: Desk, data: st.DataObject, index: int, state: str) -> OwnedRange | None:
    """Bring a range into a state; its owner, if it has one that lives."""
    if state == "untouched":
        return None
    owned = desk.own(index)
    if state == "finished":
        send_all(owned, data.draw(st.sampled_from(KINDS), "kind"), retry_after_seconds=0)
        return None
    owned.record(some(data, owned))
    if state == "leased":
        return owned
    if state == "drained":
        owned.drain()
        return None
    owned.close()  # killed: what it had open stays so
    desk.expire(owned.id)
    if state == "killed twice":
        second = desk.acquire(index)
        if isinstance(second, OwnedRange):
            if second.resend and not second.open:
                second.claim_resend(second.resend.spans[0][0])
            second.close()
            desk.expire(second.id)
    return None


@settings(max_examples=15, deadline=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
@given(
    data=st.data(),
    states=st.lists(st.sampled_from(STATES), min_size=1, max_size=5),
    policy=st.sampled_from(OnUncertain),
    into=st.sampled_from([RunState.CANCELLED, RunState.SUPERSEDED, RunState.FAILED]),
)
def test_a_run_is_closed_with_exact_books_whatever_its_ranges_do(
    postgres: PostgresServer, data: st.DataObject, states: list[str], policy: OnUncertain, into: RunState
) -> None:
    reason = EndReason.END_TIME_REACHED if into is RunState.FAILED else None
    with Desk(postgres.database(), keys=PAGE * len(states), on_uncertain=policy) as desk:
        alive = [o for i, s in enumerate(states) if (o := bring(desk, data, i, s))]
        if "retried" in states:
            desk.runs.retry_wave(desk.run, PAGE)  # ranges made of the deferred, never claimed
        before = desk.totals()
        waiting = desk.value("SELECT count(*) FROM deferral")
        again = [some(data, o) for o in alive]
        closing = [desk.soon(desk.runs.close, desk.run, into, reason) for _ in range(2)]
        for owned, known in zip(alive, again, strict=True):
            owned.record(known)
            if data.draw(st.booleans(), "drains"):
                owned.drain()
        sample(desk.url, desk.run)
        for closed in closing:
            closed.result(30)
        late = [(o, outcomes(o, o.open)) for o in alive if not o.ended and o.open]
        fence = data.draw(st.booleans(), "leases are not waited out")
        if not fence:
            desk.expire()
        wait_for("the run has ended", lambda: desk.runs.close(desk.run, into, reason, fence=fence))
        books = desk.books()
        totals = books.totals
        assert totals["remaining"] == totals["deferred"] == 0
        assert desk.value("SELECT count(*) FROM deferral") == 0
        assert desk.value("SELECT count(*) FROM range WHERE state = 'Open'") == 0
        assert totals["cancelled"] >= waiting
        assert totals["sent"] >= before.get("sent", 0)
        assert desk.value("SELECT state FROM run") == into
        assert desk.value("SELECT end_reason FROM run") == reason
        for owned, known in late:  # who was fenced tells what it knows, and nothing but uncertain moves
            try:
                owned.record(known)
            except Fenced:
                owned.leave_late(known)
        turned = desk.runs.absorb_late(desk.run)
        assert turned == sum(len(known) for _, known in late)
        after = desk.books().totals
        assert after == totals | {"sent": totals["sent"] + turned, "uncertain": totals["uncertain"] - turned}
        assert desk.runs.close(desk.run, RunState.CANCELLED)
        assert desk.books().totals == after
        for owned in alive:
            owned.close()


def test_a_run_that_is_being_closed_does_not_come_to_be_complete(postgres: PostgresServer) -> None:
    """One range is cancelled, the other is finished by its sender before the run can be closed."""
    with Desk(postgres.database(), keys=2 * PAGE) as desk:
        owned = desk.own(0)
        assert not desk.runs.close(desk.run, RunState.CANCELLED)
        send_all(owned, OutcomeKind.SENT)
        assert not desk.runs.complete(desk.run)
        assert desk.runs.close(desk.run, RunState.CANCELLED)
        assert desk.value("SELECT state FROM run") == RunState.CANCELLED
        owned.close()


def test_a_lease_that_nobody_can_end_is_fenced_and_what_its_owner_knows_is_counted(postgres: PostgresServer) -> None:
    with Desk(postgres.database(), keys=PAGE) as desk:
        long = Timing(lease_seconds=600)
        runs, owned = type(desk.runs)(desk.engine(), long), desk.own(0, timing=long)
        known = outcomes(owned, claim(owned, 5))
        assert not runs.close(desk.run, RunState.CANCELLED)
        assert runs.close(desk.run, RunState.CANCELLED, fence=True)
        assert desk.books().totals | {"uncertain": 5, "cancelled": PAGE - 5} == desk.books().totals
        with pytest.raises(Fenced):
            owned.record(known)
        owned.leave_late(known)
        assert desk.runs.absorb_late(desk.run) == 5
        assert desk.books().totals | {"sent": 5, "uncertain": 0} == desk.books().totals
        owned.close()
