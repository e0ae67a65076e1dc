"""The ledger: runs, waves, ranges, claims, doubt, deferrals. The operator's side bears the names of `Runs`, and does
in memory what its transactions do; `between` is called where one transaction ends and the next begins.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mailfleet_sender.contract.accounts import Failure, Report, ReportReason, RunState, Totals, WaveKind
from mailfleet_sender.contract.campaign import OnUncertain
from mailfleet_sender.errors import LedgerUnavailable
from mailfleet_sender.ledger import Runs
from mailfleet_sender.ledger.books import Books
from mailfleet_sender.ledger.values import Deferrals, RunRow, StepRow, WaveRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from mailfleet_sender.contract.accounts import EndReason, PauseReason
    from mailfleet_sender.contract.campaign import Campaign, Canary
    from mailfleet_sender.contract.relay import Relay

    from .clock import Clock, Wire

LEASE, MARGIN = 15.0, 5.0
CODE = "550"
"""What a refused recipient gets."""


@dataclass(eq=False)
class Range:
    """As the table has it; positions are keys here.

    Attributes:
        step: the canary step whose recipients these are; 0: none.
        became: what became of them at this attempt.
        absorbed: those of them of whom that was known late.
    """

    id: int
    wave: int
    index: int
    keys: list[int]
    from_verdict: str | None
    state: str = "Open"
    epoch: int = 0
    owner: str | None = None
    lease_until: float | None = None
    waiting: list[int] = field(default_factory=list)
    claimed: set[int] = field(default_factory=set)
    late: dict[int, str] = field(default_factory=dict)
    step: int = 0
    became: dict[int, str] = field(default_factory=dict)
    absorbed: set[int] = field(default_factory=set)

    @property
    def undecided(self) -> list[int]:
        return [*self.waiting, *self.claimed]


@dataclass(eq=False)
class Run:
    """One run and all that belongs to it."""

    row: dict[str, Any]
    audience: tuple[int, ...] = ()
    skipped: int = 0
    ranges: list[Range] = field(default_factory=list)
    waves: dict[int, tuple[WaveKind, int, int]] = field(default_factory=dict)
    verdict: dict[int, str] = field(default_factory=dict)
    deferred: dict[int, datetime] = field(default_factory=dict)
    attempts: Counter[int] = field(default_factory=Counter)
    canary: Canary | None = None
    held: set[int] = field(default_factory=set)
    step_ended: dict[int, datetime | None] = field(default_factory=dict)
    passed: list[tuple[int, Counter[str]]] = field(default_factory=list)
    reports: dict[str, Report] = field(default_factory=dict)

    @property
    def id(self) -> int:
        return int(self.row["id"])

    @property
    def state(self) -> RunState:
        return RunState(self.row["state"])

    @property
    def open(self) -> list[Range]:
        return [r for r in self.ranges if r.state == "Open"]

    def figures(self, step: int, *, late: bool = True) -> Counter[str]:
        """What became of a canary step's recipients at their first attempt; without what was known late."""
        mine = [r for r in self.ranges if r.step == step]
        return Counter(v for r in mine for k, v in r.became.items() if late or k not in r.absorbed)

    def totals(self) -> Totals:
        """Remaining is counted from ranges, all else from verdicts: the sum is no tautology."""
        counts = Counter(self.verdict.values())
        if self.state in {RunState.PLANNING, RunState.PLANNED}:
            remaining = len(self.audience)
        else:
            remaining = sum(len(r.undecided) for r in self.open if r.from_verdict is None)
        planned = len(self.audience) + self.skipped
        return Totals(planned=planned, skipped=self.skipped, remaining=remaining, **counts)


class ModelLedger:
    """Every method of `Runs` that the operator calls, and what senders and planners do."""

    def __init__(self, clock: Clock, audience: Sequence[int], skipped: int) -> None:
        self._clock, self._audience, self._skipped = clock, tuple(audience), skipped
        self.runs: dict[int, Run] = {}
        self.changes = 0
        self.between: Callable[[], None] = lambda: None

    # --- reading ---------------------------------------------------------------------------------------
    def find_all(self, names: Iterable[tuple[str, str]]) -> list[RunRow]:
        return [RunRow(**r.row, planned=len(r.audience) + r.skipped, skipped=r.skipped) for r in self.runs.values()]

    def find(self, namespace: str, name: str) -> list[RunRow]:
        return self.find_all([(namespace, name)])

    def totals(self, runs: Sequence[int]) -> dict[int, Totals]:
        return {i: self.runs[i].totals() for i in runs}

    def waves(self, runs: Sequence[int]) -> dict[int, list[WaveRow]]:
        return {i: [self._wave(self.runs[i], n) for n in self.runs[i].waves] for i in runs if self.runs[i].waves}

    def _wave(self, run: Run, number: int) -> WaveRow:
        kind, ranges, planned = run.waves[number]
        mine = [r for r in run.ranges if r.wave == number]
        at_work = [r for r in mine if r.state == "Open"]
        active = sum(self._leased(r) for r in at_work)
        return WaveRow(run.id, number, kind, ranges, planned, self._clock.now, len(mine) - len(at_work), len(at_work),
                       active, sum(len(r.waiting) for r in at_work), number in run.held)  # fmt: skip

    def steps(self, runs: Sequence[int]) -> dict[int, list[StepRow]]:
        return {i: [self._step(self.runs[i], n) for n in self.runs[i].step_ended] for i in runs if self.runs[i].held}

    def _step(self, run: Run, number: int) -> StepRow:
        at_work = sum(r.step == number for r in run.open)
        counts = run.figures(number)
        return StepRow(run.id, number, number in run.held, run.step_ended[number], run.waves[number][2], at_work,
                       counts["sent"], counts["failed"], counts["uncertain"], counts["deferred"])  # fmt: skip

    def deferrals(self, runs: Sequence[int]) -> dict[int, Deferrals]:
        found = {}
        for i in runs:
            if due := self.runs[i].deferred.values():
                found[i] = Deferrals(len(due), sum(d <= self._clock.now for d in due), min(due))
        return found

    def unowned(self, runs: Sequence[int], *, idle: bool = False, leased: bool = False) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for i in runs:
            for r in self.runs[i].open:
                if r.epoch and (leased or not self._leased(r)) and (idle or r.owner or r.claimed):
                    found.setdefault(i, []).append(r.id)
        return found

    def late(self, runs: Sequence[int]) -> dict[int, int]:
        counts = {i: sum(len(r.late) for r in self.runs[i].ranges if r.state != "Open") for i in runs}
        return {i: n for i, n in counts.items() if n}

    def reports(self, runs: Sequence[int]) -> list[Report]:
        return [report for i in runs for report in self.runs[i].reports.values()]

    def failures(self, run_id: int, most: int, *, retried: bool) -> tuple[Failure, ...]:
        count = sum(v == "failed" for v in self.runs[run_id].verdict.values())
        return (Failure(CODE, count, "550 no such user"),)[:most] if count else ()

    def frequent_failure(self, run_id: int) -> str | None:
        return next((f.code for f in self.failures(run_id, 1, retried=False)), None)

    def skipped(self, run_id: int) -> dict[str, int]:
        return {"AddressInvalid": self.runs[run_id].skipped}

    # --- before the start --------------------------------------------------------------------------------
    def ensure(
        self, namespace: str, name: str, run_id: str, campaign: Campaign, *, approved_step: int | None = None
    ) -> RunRow:
        if not any(r.row["run_id"] == run_id for r in self.runs.values()):
            number = len(self.runs) + 1
            self.runs[number] = Run({
                "id": number, "namespace": namespace, "name": name, "run_id": run_id,
                "definition_hash": campaign.definition_hash(), "on_uncertain": OnUncertain.SKIP,
                "state": RunState.PLANNING, "plan_wanted": 1, "plan_id": None, "key_type": None,
                "created_at": self._clock.now, "started_at": None, "ended_at": None, "retry_generation": 0,
                "retried": None, "end_reason": None, "paused_at": None, "pause_reason": None, "pause_message": None,
                "resumed_at": None, "approved_before": approved_step if self.runs else None,
            }, canary=campaign.canary)  # fmt: skip
            self.changes += 1
        return next(r for r in self.find(namespace, name) if r.run_id == run_id)

    def edit(self, run_id: int, campaign: Campaign, *, approved_step: int | None = None) -> bool:
        run = self.runs[run_id]
        if run.state not in {RunState.PLANNING, RunState.PLANNED}:
            return False
        run.row |= {
            "definition_hash": campaign.definition_hash(),
            "plan_wanted": run.row["plan_wanted"] + 1,
            "plan_id": None,
            "state": RunState.PLANNING,
        }
        self._approved(run, approved_step)
        run.audience, run.skipped, run.canary = (), 0, campaign.canary
        self.changes += 1
        return True

    def amend(self, run_id: int, campaign: Campaign, *, approved_step: int | None = None) -> bool:
        run = self.runs[run_id]
        if run.row["definition_hash"] != campaign.definition_hash():
            return False
        self._approved(run, approved_step)
        return True

    @staticmethod
    def _approved(run: Run, approved_step: int | None) -> None:
        if run.row["approved_before"] != approved_step:
            run.row["approved_before"] = None

    def start(self, run_id: int, definition_hash: str, range_size: int) -> bool:
        run = self.runs[run_id]
        same = run.row["definition_hash"] == definition_hash
        if run.state is not RunState.PLANNED or run.row["plan_id"] != run.row["plan_wanted"] or not same:
            return same and run.row["started_at"] is not None
        run.row |= {"state": RunState.OPEN, "started_at": self._clock.now}
        left = list(run.audience)
        for step, size in enumerate(run.canary.sizes(len(left)) if run.canary else (), 1):
            share, left = left[:size], left[size:]
            self._insert_wave(run, WaveKind.CANARY, {None: share}, range_size, step=step)
            run.step_ended[step] = None
        if left or not run.waves:
            self._insert_wave(run, WaveKind.MAIN, {None: left}, range_size)
        run.held = set(run.waves) - {1}
        self.changes += 1
        return True

    # --- canary steps and pauses -------------------------------------------------------------------------
    def end_step(self, run_id: int, step: int) -> bool:
        run = self.runs[run_id]
        if step in run.held or run.step_ended[step] or any(r.step == step for r in run.open):
            return False
        run.step_ended[step] = self._clock.now
        self.changes += 1
        return True

    def pass_step(self, run_id: int, step: int) -> bool:
        run = self.runs[run_id]
        if run.state is not RunState.OPEN or step + 1 not in run.held or not run.step_ended[step]:
            return False
        run.held.remove(step + 1)
        run.passed.append((step, run.figures(step, late=False)))
        self.changes += 1
        return True

    def pause(self, run_id: int, reason: PauseReason, message: str, at: datetime) -> bool:
        run = self.runs[run_id]
        if run.state is not RunState.OPEN or run.row["pause_reason"]:
            return False
        run.row |= {"paused_at": at, "pause_reason": str(reason), "pause_message": message}
        self.changes += 1
        return True

    def resume(self, run_id: int, until: datetime) -> bool:
        run = self.runs[run_id]
        if not run.row["pause_reason"] or run.row["paused_at"] > until:
            return False
        run.row |= {"pause_reason": None, "pause_message": None, "resumed_at": self._clock.now}
        self.changes += 1
        return True

    @staticmethod
    def _insert_wave(
        run: Run, kind: WaveKind, keys: dict[str | None, list[int]], range_size: int, step: int = 0
    ) -> int:
        number = len(run.waves) + 1
        made = 0
        for verdict, some in keys.items():
            for start in range(0, len(some), max(1, range_size)):
                part = some[start : start + range_size]
                run.ranges.append(Range(len(run.ranges), number, made, part, verdict, waiting=list(part), step=step))
                made += 1
        run.waves[number] = (kind, made, sum(map(len, keys.values())))
        return number

    # --- later waves -------------------------------------------------------------------------------------
    def retry_wave(self, run_id: int, range_size: int) -> int | None:
        run = self.runs[run_id]
        due = sorted(k for k, at in run.deferred.items() if at <= self._clock.now)
        if run.state is not RunState.OPEN or not due or any(r.from_verdict == "deferred" for r in run.open):
            return None
        for key in due:
            del run.deferred[key]
        self.changes += 1
        return self._insert_wave(run, WaveKind.RETRY, {"deferred": due}, range_size)

    def retry_failed(self, run_id: int, generation: int, codes: Sequence[str], range_size: int) -> int | None:
        run = self.runs[run_id]
        if run.state not in {RunState.OPEN, RunState.COMPLETE} or run.row["retry_generation"] >= generation:
            return None
        if any(r.from_verdict in {"failed", "uncertain"} for r in run.open):
            return None
        failed = sorted(k for k, v in run.verdict.items() if v == "failed" and CODE in codes)
        run.row |= {"retry_generation": generation, "retried": len(failed)}
        self.changes += 1
        if not failed:
            return None
        run.row |= {"state": RunState.OPEN, "ended_at": None}
        return self._insert_wave(run, WaveKind.RETRY, {"failed": failed}, range_size)

    def repair_wave(self, run_id: int, ended_wave: int) -> int | None:
        run = self.runs[run_id]
        left = [r for r in run.open if r.wave == ended_wave]
        if not left or run.state is not RunState.OPEN:
            return None
        number = len(run.waves) + 1
        for index, r in enumerate(left):
            r.wave, r.index = number, index
        run.waves[number] = (WaveKind.REPAIR, len(left), sum(len(r.waiting) for r in left))
        self.changes += 1
        return number

    # --- ranges that nobody owns -------------------------------------------------------------------------
    def settle_all(self, run_id: int) -> int:
        done = 0
        for i in self.unowned([run_id]).get(run_id, ()):
            self.between()
            done += self._take(self.runs[run_id], self.runs[run_id].ranges[i], None)
        return done

    def absorb_late(self, run_id: int) -> int:
        run = self.runs[run_id]
        done = 0
        for r in run.ranges:
            if r.state != "Open" and r.late:
                self.between()
                done += self._absorb(run, r)
        return done

    # --- the end -------------------------------------------------------------------------------------------
    def complete(self, run_id: int) -> bool:
        run = self.runs[run_id]
        if run.state is not RunState.OPEN:
            return run.state is RunState.COMPLETE
        totals = run.totals()
        if totals.deferred or totals.remaining or totals.cancelled or run.open:
            return False
        assert totals.adds_up, totals
        self._end(run, RunState.COMPLETE)
        return True

    def close(self, run_id: int, into: RunState, reason: EndReason | None = None, *, fence: bool = False) -> bool:
        run = self.runs[run_id]
        for r in run.open:
            if not r.epoch:
                self._cancel(run, r)
        for i in self.unowned([run_id], idle=True, leased=fence).get(run_id, ()):
            self.between()
            r = run.ranges[i]
            if self._take(run, r, None, fence=fence) and r.state == "Open":
                self._cancel(run, r)
        self.between()
        if run.row["ended_at"] is not None:
            return True
        if run.state is not RunState.OPEN:
            run.verdict = dict.fromkeys(run.audience, "cancelled")
            self._end(run, into, reason)
            return True
        if run.open:
            return False
        run.verdict |= dict.fromkeys(run.deferred, "cancelled")
        run.deferred.clear()
        self._end(run, into, reason)
        return True

    def supersede(self, namespace: str, name: str, but: str, *, fence: bool = False) -> bool:
        older = [r for r in self.runs.values() if r.row["run_id"] != but and r.row["ended_at"] is None]
        ended = [
            self.close(r.id, RunState.SUPERSEDED, fence=fence) for r in older
        ]  # each of them, whatever the first says
        return all(ended)

    def save_relay(self, relay: Relay) -> int:
        return 1

    def _end(self, run: Run, state: RunState, reason: EndReason | None = None) -> None:
        run.row |= {"state": state, "ended_at": self._clock.now, "end_reason": reason}
        self.changes += 1

    def _cancel(self, run: Run, r: Range) -> None:
        for key in r.waiting:
            run.verdict[key] = "cancelled"
        r.waiting.clear()
        r.state = "Closed"
        self.changes += 1

    # --- senders and planners --------------------------------------------------------------------------------
    def _leased(self, r: Range) -> bool:
        return r.lease_until is not None and r.lease_until >= self._clock.seconds

    def publish(self, run_id: int, plan: int) -> bool:
        """A planner's last statement."""
        run = self.runs[run_id]
        if run.state is not RunState.PLANNING or run.row["plan_wanted"] != plan:
            return False
        run.audience, run.skipped = self._audience, self._skipped
        run.row |= {"state": RunState.PLANNED, "plan_id": plan}
        return True

    def acquire(self, run_id: int, wave: int, index: int, owner: str) -> Range | float | None:
        """The range; None: it has ended, or moved on; seconds: somebody's lease holds."""
        run = self.runs[run_id]
        r = next((r for r in run.ranges if (r.wave, r.index) == (wave, index)), None)
        if r is None or r.state != "Open":
            return None
        if not self._take(run, r, owner):
            return max(0.0, (r.lease_until or 0.0) - self._clock.seconds)
        return r if r.state == "Open" else None

    def _take(self, run: Run, r: Range, owner: str | None, *, fence: bool = False) -> bool:
        if r.state != "Open" or (self._leased(r) and r.owner != owner and not fence):
            return False
        r.epoch += 1
        r.owner, r.lease_until = owner, (self._clock.seconds + LEASE if owner else None)
        for key in sorted(r.claimed):
            run.verdict[key] = r.became[key] = "uncertain"
        r.claimed.clear()
        self._absorb(run, r)
        self._finish(r)
        self.changes += 1
        return True

    def _absorb(self, run: Run, r: Range) -> int:
        hits = {k: v for k, v in r.late.items() if run.verdict.get(k) == "uncertain"}
        run.verdict |= hits
        r.became |= hits
        r.absorbed |= set(hits)
        r.late.clear()
        self.changes += 1
        return len(hits)

    def _finish(self, r: Range) -> None:
        if not r.undecided:
            r.state, r.owner, r.lease_until = "Finished", None, None

    def owns(self, r: Range, epoch: int, owner: str) -> bool:
        """The compare of each of a sender's writes."""
        return r.state == "Open" and r.epoch == epoch and r.owner == owner

    def claim(self, r: Range, count: int) -> list[int]:
        now, r.waiting = r.waiting[:count], r.waiting[count:]
        r.claimed.update(now)
        return now

    def record(self, run_id: int, r: Range, outcomes: dict[int, str], retry_seconds: float) -> None:
        run = self.runs[run_id]
        for key, outcome in outcomes.items():
            r.claimed.remove(key)
            run.verdict[key] = r.became[key] = outcome
            if outcome == "deferred":
                run.deferred[key] = self._clock.now + timedelta(seconds=retry_seconds)
        self._finish(r)

    def report(self, run_id: int, reporter: str, reason: ReportReason, message: str) -> None:
        self.runs[run_id].reports[reporter] = Report(run_id, reporter, reason, message, self._clock.now)

    def drain(self, r: Range) -> None:
        """Give back what was claimed and not sent, and the lease."""
        r.waiting = [*sorted(r.claimed), *r.waiting]
        r.claimed.clear()
        r.owner, r.lease_until = None, None


class WiredRuns:
    """The same as `Runs`, over a wire that may break; what the model lacks is named."""

    def __init__(self, ledger: ModelLedger, wire: Wire, away: Callable[[], bool]) -> None:
        self._ledger, self._wire, self._away = ledger, wire, away

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **settings: Any) -> Any:
            if self._away():
                raise LedgerUnavailable("the model's ledger is away")
            self._ledger.between = lambda: self._wire.call(f"within {name}", lambda: None)
            return self._wire.call(name, lambda: method(*args, **settings))

        method = getattr(self._ledger, name, None)
        if method is None and name in vars(Books):
            empty: Any = {} if "dict" in str(vars(Books)[name].__annotations__["return"]) else []
            return lambda *_args, **_settings: empty  # a question whose answer the model does not need
        if method is None:
            known = "is" if name in vars(Runs) else "is not even"
            raise AssertionError(f"the model's ledger knows no {name}, which {known} one of Runs: teach it")
        return call
