"""Real concurrency: senders that die, freeze and lose answers on leases of milliseconds, an operator beside them."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections import Counter
from uuid import uuid4

import pytest

from books import sample
from ledgers import FAST, PAGE, Desk, claim, outcomes
from mailfleet_sender.contract.accounts import OutcomeKind, RunState
from mailfleet_sender.contract.campaign import OnUncertain
from mailfleet_sender.errors import Fenced, LedgerUnavailable
from mailfleet_sender.ledger import Outcome, OwnedRange, Positions, Runs
from proxy import Proxy

KEYS = 1_800
SECONDS = 6.0
KINDS = [OutcomeKind.SENT] * 85 + [OutcomeKind.DEFERRED] * 7 + [OutcomeKind.FAILED] * 4 + [OutcomeKind.UNCERTAIN] * 4


class _KilledError(Exception):
    """kill -9, as far as the ledger can tell."""


class Storm:
    """Senders and an operator over one run, and the list of mails that were really sent."""

    def __init__(self, desk: Desk, seed: int) -> None:
        self.desk, self.random = desk, random.Random(seed)
        self.mails: Counter[str] = Counter()
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.fenced = self.killed = self.spoiled = self.samples = self.again = self.retried = 0

    def chance(self, percent: int) -> bool:
        return self.random.random() * 100 < percent

    def send(self, owned: OwnedRange, positions: Positions) -> list[Outcome]:
        """What became of these; mails are written down as they go out."""
        made = []
        for one in outcomes(owned, positions, retry_after_seconds=0):
            kind = self.random.choice(KINDS)
            made.append(one._replace(kind=kind, code="550" if kind is OutcomeKind.FAILED else None))
            if kind in {OutcomeKind.SENT, OutcomeKind.UNCERTAIN}:
                with self.lock:
                    self.mails[one.key or ""] += 1
        return made

    def next_claim(self, owned: OwnedRange) -> Positions | None:
        """Claim something; None: nothing is left to claim."""
        if owned.resend and not owned.open and not owned.resending:
            owned.claim_resend(owned.resend.spans[0][0])
            return owned.resending
        if owned.returned:
            now = owned.returned.take(self.random.randint(1, 40))
            owned.claim_returned(now)
            return now
        return claim(owned, self.random.randint(1, 60)) if owned.position < owned.planned else None

    def life(self, owned: OwnedRange, proxy: Proxy) -> None:
        """One sender, from its first claim to whatever ends it."""
        pending: list[Outcome] = []
        try:
            while not owned.ended:
                if self.chance(6):
                    proxy.fault = self.random.choice(["before", "after"])
                now = self.next_claim(owned)
                if now:
                    self.may_die(owned, now)
                    pending += self.send(owned, now)
                self.may_freeze()
                if pending and (now is None or owned.resending or self.chance(60)):
                    pending = self.record(owned, pending, everything=now is None or bool(owned.resending))
                if not pending and not owned.ended and self.chance(4):
                    owned.drain()
                    break
        except _KilledError:
            self.killed += 1
        except Fenced:
            self.fenced += 1
            owned.leave_late(pending)
        finally:
            owned.close()

    def may_die(self, owned: OwnedRange, now: Positions) -> None:
        """After the claim: before sending, or in the middle of it."""
        if self.chance(10):
            self.send(owned, now.take(self.random.randint(0, len(now))))
            raise _KilledError

    def may_freeze(self) -> None:
        """Past most leases; and it thaws."""
        if self.chance(8):
            time.sleep(0.1)

    def record(self, owned: OwnedRange, pending: list[Outcome], *, everything: bool) -> list[Outcome]:
        """Record some, in any order; what is still pending."""
        self.random.shuffle(pending)
        cut = len(pending) if everything else self.random.randint(1, len(pending))
        owned.record(pending[:cut])
        return pending[cut:]

    def sender(self) -> None:
        """Pods that follow each other."""
        with Proxy(self.desk.url) as proxy:
            engine = self.desk.engine(proxy.url)
            runs = Runs(self.desk.engine(), FAST)
            while not self.stop.is_set():
                ranges = runs.open_ranges(self.desk.run)
                if not ranges:
                    time.sleep(0.01)
                    continue
                wave, index = self.random.choice(ranges)
                timing = dataclasses.replace(FAST, lease_seconds=self.random.choice([0.03, 0.06, 2.0]))
                try:
                    owned = OwnedRange.acquire(
                        engine, run=self.desk.run, wave=wave, index=index, owner=uuid4(), timing=timing
                    )
                except LedgerUnavailable:
                    continue
                if isinstance(owned, OwnedRange):
                    self.life(owned, proxy)
            self.spoiled += proxy.spoiled

    def operator(self) -> None:
        """Settles, retries, absorbs, repairs; each at any moment."""
        runs, generation = Runs(self.desk.engine(), FAST), 0
        while not self.stop.is_set():
            runs.settle_all(self.desk.run)
            runs.retry_wave(self.desk.run, PAGE)
            runs.absorb_late(self.desk.run)
            if self.chance(15):
                generation += 1
                uncertain = self.chance(50)
                codes = ["550", "Uncertain"] if uncertain else ["550"]
                made = runs.retry_failed(self.desk.run, generation, codes, PAGE) is not None
                self.retried, self.again = self.retried + made, self.again + (made and uncertain)
            if self.chance(5):
                for wave in runs.waves([self.desk.run])[self.desk.run]:
                    runs.repair_wave(self.desk.run, wave.number)
            time.sleep(0.03)

    def sampler(self) -> None:
        """The sum, again and again."""
        while not self.stop.is_set():
            sample(self.desk.url, self.desk.run)
            self.samples += 1


@pytest.mark.parametrize("policy", list(OnUncertain))
@pytest.mark.parametrize("ending", ["drained", "cancelled"])
def test_a_storm_loses_nobody_and_the_sum_holds_all_the_while(
    database_url: str, policy: OnUncertain, ending: str
) -> None:
    with Desk(database_url, keys=KEYS, on_uncertain=policy) as desk:
        storm = Storm(desk, seed=len(policy) * 10 + len(ending))
        working = [desk.soon(storm.sender) for _ in range(3)] + [desk.soon(storm.operator), desk.soon(storm.sampler)]
        until = time.monotonic() + (SECONDS if ending == "drained" else SECONDS / 6)
        while time.monotonic() < until and desk.runs.open_ranges(desk.run) and not any(w.done() for w in working):
            time.sleep(0.02)
        storm.stop.set()
        for work in working:
            work.result(60)
        while desk.runs.open_ranges(desk.run) and ending == "cancelled":
            desk.expire()
            desk.runs.close(desk.run, RunState.CANCELLED)
        desk.expire()
        desk.runs.settle_all(desk.run)
        desk.runs.absorb_late(desk.run)
        books = desk.books()
        history = desk.sql("SELECT key, outcome FROM delivery WHERE run = %s", desk.run)
        mailed, doubted = set(storm.mails), {key for key, outcome in history if outcome == "uncertain"}
        print(
            f"{policy} {ending}: {books.totals} mails={sum(storm.mails.values())} killed={storm.killed}"
            f" fenced={storm.fenced} spoiled={storm.spoiled} retried={storm.retried} samples={storm.samples}"
        )
        assert storm.killed + storm.fenced + storm.spoiled > 0
        assert storm.samples > 0
        assert books.keys("sent") <= mailed, "sent without a mail"
        assert mailed <= {key for key, _ in history}, "mails that the ledger names nowhere"
        assert {key for key, n in storm.mails.items() if n > 1} <= doubted
        assert max(storm.mails.values()) <= (2 if policy is OnUncertain.RESEND else 1) + storm.again
