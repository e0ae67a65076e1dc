"""Several owners, an operator and every fault at once, held against a list of the mails that were really sent."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from books import sample
from ledgers import PAGE, Desk, outcomes
from mailfleet_sender.contract.accounts import OutcomeKind, RunState
from mailfleet_sender.contract.campaign import OnUncertain
from mailfleet_sender.errors import Fenced, LedgerUnavailable
from mailfleet_sender.ledger import Outcome, OwnedRange, Positions
from proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = PAGE + 40
"""Two ranges: a full one and a small one that ends often."""
KINDS = {
    OutcomeKind.SENT: 8,
    OutcomeKind.DEFERRED: 2,
    OutcomeKind.FAILED: 1,
    OutcomeKind.UNCERTAIN: 1,
}
MAILED = {OutcomeKind.SENT, OutcomeKind.UNCERTAIN}
kinds = st.lists(
    st.sampled_from([kind for kind, weight in KINDS.items() for _ in range(weight)]), min_size=1, max_size=40
)
_numbers = itertools.count()


@dataclass
class Pod:
    """A sender: what it owns, what it has claimed and not sent, and the outcomes it has not recorded."""

    owned: OwnedRange
    unsent: list[int] = field(default_factory=list)
    pending: list[Outcome] = field(default_factory=list)
    gone: bool = False


class Fleet(RuleBasedStateMachine):
    """Senders come and go; whatever happens, the books hold at each step."""

    pods = Bundle("pods")
    on_uncertain = OnUncertain.SKIP

    def __init__(self, url: str) -> None:
        super().__init__()
        self.desk = Desk(url, keys=KEYS, on_uncertain=self.on_uncertain, run_id=str(next(_numbers)))
        self.proxy = Proxy(url)
        self.mails: Counter[str] = Counter()
        self.alive: list[Pod] = []
        self.generation = self.again = 0

    # --- senders ----------------------------------------------------------------------------------
    def acquire_one(self, wave: int, index: int) -> Pod | None:
        try:
            owned = self.desk.acquire(index, wave=wave, url=self.proxy.url)
        except LedgerUnavailable:
            return None
        if not isinstance(owned, OwnedRange):
            return None
        pod = Pod(owned)
        self.alive.append(pod)
        return pod

    @rule(target=pods, which=st.integers(0, 5))
    def acquire(self, which: int) -> Pod | None:
        ranges = self.desk.runs.open_ranges(self.desk.run)
        return self.acquire_one(*ranges[which % len(ranges)]) if ranges else None

    def guarded(self, pod: Pod, write: Callable[[], object]) -> bool:
        """Do a write; a fenced sender leaves its late outcomes and ends."""
        try:
            write()
        except Fenced:
            pod.owned.leave_late(pod.pending)
            self.lose(pod)
            return False
        return True

    def lose(self, pod: Pod) -> None:
        pod.gone = True
        pod.owned.close()
        self.alive.remove(pod)

    @rule(pod=pods, count=st.integers(1, 200), wait=st.integers(0, 3), skip=st.integers(0, 3))
    def claim(self, pod: Pod | None, count: int, wait: int, skip: int) -> None:
        if not pod or pod.gone or pod.owned.ended:
            return
        owned = pod.owned
        everything = list(range(owned.position, min(owned.planned, owned.position + count)))
        waiting, skipped, now = everything[:wait], everything[wait : wait + skip], everything[wait + skip :]
        decided = outcomes(owned, skipped, OutcomeKind.SKIPPED, code="RecipientGone")
        to = owned.position + len(everything)
        if self.guarded(pod, lambda: owned.claim(to, Positions.of(now), Positions.of(waiting), decided)):
            pod.unsent += now

    @rule(pod=pods, count=st.integers(1, 60))
    def claim_returned(self, pod: Pod | None, count: int) -> None:
        if not pod or pod.gone or pod.owned.ended:
            return
        now = pod.owned.returned.take(count)
        if self.guarded(pod, lambda: pod.owned.claim_returned(now)):
            pod.unsent += list(now)

    @rule(pod=pods)
    def claim_resend(self, pod: Pod | None) -> None:
        if not pod or pod.gone or pod.owned.ended or pod.owned.open or pod.owned.resending or not pod.owned.resend:
            return
        (position,) = pod.owned.resend.take(1)
        if self.guarded(pod, lambda: pod.owned.claim_resend(position)):
            pod.unsent += list(pod.owned.resending)

    @rule(pod=pods, results=kinds)
    def send(self, pod: Pod | None, results: list[OutcomeKind]) -> None:
        if not pod or pod.gone:
            return
        now, pod.unsent = pod.unsent[: len(results)], pod.unsent[len(results) :]
        for position, kind in zip(now, results, strict=False):
            code = "550" if kind is OutcomeKind.FAILED else None
            (made,) = outcomes(pod.owned, [position], kind, retry_after_seconds=0, code=code)
            assert made.key
            self.mails[made.key] += kind in MAILED
            pod.pending.append(made)

    @rule(pod=pods, share=st.integers(1, 40), backwards=st.booleans())
    def record(self, pod: Pod | None, share: int, *, backwards: bool) -> None:
        if not pod or pod.gone or not pod.pending:
            return
        batch = pod.pending[-share:] if backwards else pod.pending[:share]
        if self.guarded(pod, lambda: pod.owned.record(batch)):
            pod.pending = [o for o in pod.pending if o not in batch]

    @rule(pod=consumes(pods))
    def drain(self, pod: Pod | None) -> None:
        if not pod or pod.gone or pod.owned.ended:
            return
        if self.guarded(pod, lambda: pod.owned.record(pod.pending)):
            pod.pending = []
            if pod.owned.ended or self.guarded(pod, pod.owned.drain):
                self.lose(pod)

    @rule(pod=pods)
    def renew(self, pod: Pod | None) -> None:
        if pod and not pod.gone:
            try:
                self.guarded(pod, pod.owned.renew)
            except LedgerUnavailable:
                return

    # --- faults -----------------------------------------------------------------------------------
    @rule(pod=consumes(pods))
    def kill(self, pod: Pod | None) -> None:
        if pod and not pod.gone:
            self.lose(pod)

    @rule()
    def freeze_all_past_their_leases(self) -> None:
        self.desk.expire()

    @rule(fault=st.sampled_from(["before", "after"]))
    def spoil_the_next_commit(self, fault: str) -> None:
        self.proxy.fault = "before" if fault == "before" else "after"

    @rule()
    def cut_all_connections(self) -> None:
        self.proxy.cut()

    # --- the operator -----------------------------------------------------------------------------
    @rule()
    def settle(self) -> None:
        self.desk.runs.settle_all(self.desk.run)

    @rule()
    def retry(self) -> None:
        self.desk.runs.retry_wave(self.desk.run, PAGE)

    @rule(uncertain=st.booleans())
    def retry_failed(self, *, uncertain: bool) -> None:
        self.generation += 1
        codes = ["550", "Uncertain"] if uncertain else ["550"]
        made = self.desk.runs.retry_failed(self.desk.run, self.generation, codes, PAGE)
        self.again += bool(made and uncertain)

    @rule()
    def complete(self) -> None:
        self.desk.runs.complete(self.desk.run)

    @rule()
    def repair(self) -> None:
        for wave in self.desk.runs.waves([self.desk.run])[self.desk.run]:
            self.desk.runs.repair_wave(self.desk.run, wave.number)

    @rule()
    def absorb(self) -> None:
        self.desk.runs.absorb_late(self.desk.run)

    @rule(sure=st.integers(0, 7))
    def close(self, sure: int) -> None:
        if sure == 0:
            self.desk.runs.close(self.desk.run, RunState.CANCELLED)

    # --- what always holds ------------------------------------------------------------------------
    @invariant()
    def the_sum_holds_and_the_operator_counts_the_same(self) -> None:
        theirs = sample(self.desk.url, self.desk.run)
        ours = self.desk.runs.totals([self.desk.run])[self.desk.run]
        assert {name: getattr(ours, name) for name in theirs} == theirs

    @invariant()
    def an_owner_knows_its_row(self) -> None:
        for pod in self.alive:
            o = pod.owned
            row = self.desk.sql(
                "SELECT pos, open::text, returned::text, resend::text, resending::text FROM range"
                " WHERE id = %s AND epoch = %s AND seq = %s",
                o.id, o.epoch, o.seq,
            )  # fmt: skip
            mine = (o.position, *map(str, (o.open, o.returned, o.resend, o.resending)))
            assert row in ([], [mine])

    @invariant()
    def nobody_gets_more_than_was_promised(self) -> None:
        promised = 2 if self.on_uncertain is OnUncertain.RESEND else 1
        assert max(self.mails.values(), default=0) <= promised + self.again

    @rule()
    def audit(self) -> None:
        self.desk.books()

    # --- the end ----------------------------------------------------------------------------------
    def teardown(self) -> None:
        try:
            for pod in list(self.alive):
                self.lose(pod)
            self.proxy.fault = None
            self.finish()
            self.account()
        finally:
            self.proxy.__exit__()
            self.desk.__exit__()

    def finish(self) -> None:
        """Fresh senders do what is left; the second attempt of whatever was deferred succeeds."""
        runs, run = self.desk.runs, self.desk.run
        while True:
            self.desk.expire()
            for wave, index in runs.open_ranges(run):
                pod = self.acquire_one(wave, index)
                while pod and not pod.owned.ended:
                    self.claim_resend(pod)
                    self.claim_returned(pod, PAGE)
                    self.claim(pod, PAGE, 0, 0)
                    self.send(pod, [OutcomeKind.SENT] * len(pod.unsent))
                    self.record(pod, len(pod.pending), backwards=False)
            if not runs.open_ranges(run) and not runs.retry_wave(run, PAGE):
                return

    def account(self) -> None:
        """Every key has one verdict, and the list of mails agrees."""
        runs, run = self.desk.runs, self.desk.run
        runs.absorb_late(run)
        books = self.desk.books()
        state = runs.get(run)
        assert state
        assert state.ended_at or runs.complete(run)
        assert (books.totals["remaining"], books.totals["deferred"]) == (0, 0)
        history = self.desk.sql("SELECT key, outcome FROM delivery WHERE run = %s", run)
        mailed = {key for key, count in self.mails.items() if count}
        doubted = {key for key, outcome in history if outcome == "uncertain"}
        assert books.keys("sent") <= mailed, "sent without a mail"
        assert mailed <= books.keys("sent") | doubted, "mails that the ledger names nowhere"
        assert {key for key, count in self.mails.items() if count > 1} <= doubted


class ResendingFleet(Fleet):
    """The same, sending uncertain ones once more."""

    on_uncertain = OnUncertain.RESEND


@pytest.mark.parametrize("machine", [Fleet, ResendingFleet])
def test_whatever_happens_the_books_hold_and_agree_with_the_mails(database_url: str, machine: type[Fleet]) -> None:
    class Here(machine):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__(database_url)

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=15,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate,),  # a failure is told as it came: to shrink it takes longer than a test may
        ),
    )
