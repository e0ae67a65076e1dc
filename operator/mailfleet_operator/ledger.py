"""The operator's window onto the ledger: what all campaigns of a tick need, in a few statements; and its writes.

Blocking; called from threads. Every method may raise `LedgerUnavailable`: the next tick asks again.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mailfleet_sender.contract.accounts import PauseReason, RunState, Totals
from mailfleet_sender.ledger import Runs, make_partitions, open_ledger, preflights, retain, usage_totals

from .conditions import parse_time
from .failures import Failures
from .observation import LedgerView, Pause, RunView, Skipped, StepView, WaveView

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from sqlalchemy import Engine

    from mailfleet_sender.contract.accounts import Report
    from mailfleet_sender.contract.preflight import Preflight
    from mailfleet_sender.contract.relay import Relay
    from mailfleet_sender.ledger import Deferrals, Retained, RunRow, StepRow, WaveRow


KEPT = 1000
"""Plans of which is remembered what is told of them."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What is told of a plan; see `LedgerView`."""

    skipped: tuple[Skipped, ...] = ()
    domains: tuple[tuple[str, int], ...] = ()
    file_read_at: datetime | None = None

    @classmethod
    def of(cls, reasons: Mapping[str, int], audience: Mapping[str, Any]) -> Planned:
        """From what the ledger says."""
        lines = audience.get("lines") or {}
        return cls(
            tuple(Skipped(reason, count, tuple(lines.get(reason, ()))) for reason, count in reasons.items()),
            tuple((str(domain), int(percent)) for domain, percent in audience.get("domains") or ()),
            parse_time(audience.get("fileReadAt")),
        )


@dataclass(frozen=True, slots=True)
class RunKey:
    """What a campaign asks about: its name and the run that it means."""

    namespace: str
    name: str
    run_id: str


@dataclass(frozen=True, slots=True)
class RelayKey:
    """What a relay asks about: its name, and its account."""

    namespace: str
    name: str
    account: str


@dataclass(frozen=True, slots=True)
class RelayFacts:
    """What the ledger knows of a relay: its newest preflight, and today's messages of its account."""

    found: Preflight | None
    used_today: int


class Ledger:
    """Reads for many campaigns at once; `runs` does the writes."""

    def __init__(self, engine: Engine) -> None:
        self.runs = Runs(engine)
        self._engine = engine
        self._failures = Failures(self.runs.failures)
        self._plans: dict[tuple[int, int | None], Planned] = {}
        self._codes: dict[int, tuple[tuple[int, int], str]] = {}

    @classmethod
    def connect(cls, url: str, *, connections: int) -> Ledger:
        """Nothing is opened before the first question."""
        return cls(open_ledger(url, application_name="mailfleet-operator", pool_size=connections))

    def read(self, keys: Iterable[RunKey]) -> dict[RunKey, LedgerView]:
        """One view a key; totals of all of them are one snapshot."""
        wanted = list(keys)
        rows = self._rows(wanted)
        mine = {k: next((r for r in rows[k.namespace, k.name] if r.run_id == k.run_id), None) for k in wanted}
        ids = [r.id for r in mine.values() if r]
        totals, waves, steps = self.runs.totals(ids), self.runs.waves(ids), self.runs.steps(ids)
        deferrals, unowned, late = self.runs.deferrals(ids), self.runs.unowned(ids), self.runs.late(ids)
        reports: dict[int, list[Report]] = defaultdict(list)
        for report in self.runs.reports(ids):
            reports[report.run].append(report)
        self._failures.begin()
        views = {}
        for key, row in mine.items():
            older = tuple(_run(r) for r in rows[key.namespace, key.name] if r is not row and r.ended_at is None)
            if row is None:
                views[key] = LedgerView(older=older)
                continue
            plan = self._plan(row)
            waiting: Deferrals | None = deferrals.get(row.id)
            total = totals.get(row.id, Totals())
            views[key] = LedgerView(
                run=_run(row),
                totals=total,
                waves=tuple(_wave(w) for w in waves.get(row.id, ())),
                steps=tuple(self._step(s) for s in steps.get(row.id, ())),
                older=older,
                due=waiting.due if waiting else 0,
                next_due=waiting.next_due_at if waiting else None,
                orphans=row.id in unowned,
                late=late.get(row.id, 0),
                reports=tuple(reports[row.id]),
                failures=self._failures.of(row, total),
                skipped=plan.skipped,
                domains=plan.domains,
                file_read_at=plan.file_read_at,
            )
        return views

    def _plan(self, row: RunRow) -> Planned:
        """What is told of a plan, once it has started only when its file was read; asked once, for it never changes."""
        if row.plan_id is None:
            return Planned()
        plan, before_start = (row.id, row.plan_id), row.state is RunState.PLANNED
        if plan not in self._plans:
            if len(self._plans) >= KEPT:
                self._plans.clear()
            reasons = self.runs.skipped(row.id) if row.skipped and before_start else {}
            self._plans[plan] = Planned.of(reasons, self.runs.audience(row.id))
        found = self._plans[plan]
        return found if before_start else Planned(file_read_at=found.file_read_at)

    def _step(self, row: StepRow) -> StepView:
        """With the code that most of its failures have: asked for when it has ended, and again if they have changed."""
        code = ""
        if row.failed and not row.open:
            known, code = self._codes.get(row.run, ((0, 0), ""))
            if known != (row.step, row.failed):
                if len(self._codes) >= KEPT:
                    self._codes.clear()
                code = self.runs.frequent_failure(row.run) or ""
                self._codes[row.run] = ((row.step, row.failed), code)
        return StepView(
            number=row.step,
            held=row.held,
            planned=row.planned,
            open=row.open,
            ended_at=row.ended_at,
            sent=row.sent,
            failed=row.failed,
            deferred=row.deferred,
            uncertain=row.uncertain,
            code=code,
        )

    def _rows(self, keys: Sequence[RunKey]) -> dict[tuple[str, str], list[RunRow]]:
        rows: dict[tuple[str, str], list[RunRow]] = defaultdict(list)
        for row in self.runs.find_all({(k.namespace, k.name) for k in keys}):
            rows[row.namespace, row.name].append(row)
        return rows

    def read_relays(self, keys: Iterable[RelayKey]) -> dict[RelayKey, RelayFacts]:
        """One answer a relay; a day begins at midnight UTC."""
        wanted = list(keys)
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        found = preflights(self._engine, {(k.namespace, k.name) for k in wanted})
        used = usage_totals(self._engine, {k.account for k in wanted}, midnight)
        return {k: RelayFacts(found.get((k.namespace, k.name)), used.get(k.account, 0)) for k in wanted}

    def ping(self) -> None:
        """Whether it is there: LedgerUnavailable, if not."""
        self.runs.get(0)

    def save_relay(self, relay: Relay) -> int:
        """Write a relay's row; its version, which rises with each change."""
        return self.runs.save_relay(relay)

    def keep_house(self, months: int) -> Retained:
        """Once a day: the coming months' partitions are made, what is older than `months` is forgotten."""
        make_partitions(self._engine)
        return retain(self._engine, months=months)


def _run(row: RunRow) -> RunView:
    return RunView(
        id=row.id,
        run_id=row.run_id,
        state=row.state,
        definition_hash=row.definition_hash,
        started_at=row.started_at,
        ended_at=row.ended_at,
        end_reason=row.end_reason,
        retry_generation=row.retry_generation,
        retried=row.retried,
        approved_before=row.approved_before,
        pause=_pause(row),
        paused_at=row.paused_at,
        resumed_at=row.resumed_at,
    )


def _pause(row: RunRow) -> Pause | None:
    if row.pause_reason is None or row.paused_at is None:
        return None
    return Pause(PauseReason(row.pause_reason), row.pause_message or "", row.paused_at)


def _wave(row: WaveRow) -> WaveView:
    return WaveView(row.number, row.kind, row.ranges, row.finished, row.open, row.active, row.held)
