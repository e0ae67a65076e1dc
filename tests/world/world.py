"""All of it together, with the operator in it, and what must always hold."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from mailfleet_operator import apply, names, observe, reconcile
from mailfleet_operator.apply import Hands
from mailfleet_operator.failures import Failures
from mailfleet_operator.ledger import Ledger
from mailfleet_operator.manifests import Image
from mailfleet_operator.observation import PLANNER, Status
from mailfleet_operator.observe import Observer
from mailfleet_operator.reconcile import CAMPAIGN, Key, Reconciler
from mailfleet_operator.settings import Settings
from mailfleet_sender.contract.accounts import ReportReason, RunState, Totals
from mailfleet_sender.contract.campaign import Campaign
from mailfleet_sender.errors import LedgerUnavailable

from .api import NAMESPACE, ApiServer, Body, ModelCluster, Watches, merged
from .clock import Clock, OperatorDiedError, OperatorTime, Wire
from .fleet import Fleet
from .ledger import ModelLedger, Run, WiredRuns
from .limiter import ModelLimiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mailfleet_operator.ledger import RunKey
    from mailfleet_operator.observation import LedgerView

T = TypeVar("T")
NAME = "autumn"
KEY = Key(CAMPAIGN, NAMESPACE, NAME)
WHO = f"{NAMESPACE}/{NAME}"
AUDIENCE = range(10)
SKIPPED = 1
SETTINGS = Settings("ledger", "redis", Image("sender:1", "IfNotPresent", "mailfleet"))
SPEC: Body = {
    "runId": "1",
    "relayRef": {"name": "ses"},
    "recipients": {"table": {"databaseSecretRef": {"name": "shop", "key": "url"}, "name": "people"}},
    "message": {"from": "a@example.com", "subject": "s", "text": "t"},
    "rangeSize": 4,
    "senders": {"maxReplicas": 3},
}


CANARY: Body = {
    "steps": [{"recipients": 3}, {"percent": 40}],
    "maxFailedPercent": 30,
    "maxDeferredPercent": 50,
    "pauseSeconds": 20,
}
BRAKE: Body = {"maxFailedPercent": 40, "minimumSample": 3}


class InlineReconciler(Reconciler):
    """Blocking work is done at once: there is no event loop in virtual time."""

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return call()


class Asks:
    """The ledger's answer to one key, at once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def ask(self, key: RunKey) -> LedgerView:
        return self._ledger.read([key])[key]


def finished(coroutine: Any) -> None:
    """Run a coroutine that never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("something in the operator waits, though nothing in this world makes it wait")


class OperatorProcess:
    """The real operator between modelled wires; killed, it loses its memory."""

    def __init__(self, world: World) -> None:
        self.wire = Wire()
        self.refusals: list[int] = []
        self.watches = Watches(world.api)
        cluster = ModelCluster(world.api, self.wire, self.refusals)
        ledger = Ledger(None)  # type: ignore[arg-type]
        self.runs: Any = WiredRuns(world.ledger, self.wire, lambda: world.fleet.ledger_away)
        ledger.runs = self.runs
        ledger._failures = Failures(self.runs.failures, OperatorTime.monotonic)
        observer = Observer(self.watches.watched, Asks(ledger), Asks(ledger), SETTINGS)  # type: ignore[arg-type]
        hands = Hands(ledger, world.limiter, cluster, SETTINGS)  # type: ignore[arg-type]
        self._reconciler = InlineReconciler(observer, hands, cluster, SETTINGS, None)  # type: ignore[arg-type]
        self.again = False
        self._reconciler.again = self._look_again

    def _look_again(self, key: Key, _seconds: float) -> None:
        self.again = self.again or key == KEY

    def tick(self) -> None:
        """What a tick does: the limiter, and a look."""
        finished(self._reconciler.survey())
        self.look()

    def look(self) -> None:
        self.again = False
        self.watches.bring()
        finished(self._reconciler.look(KEY))


class World:
    """One namespace with one campaign."""

    def __init__(self) -> None:
        self.clock = OperatorTime.clock = Clock()
        self.api = ApiServer(self.clock)
        self.ledger = ModelLedger(self.clock, AUDIENCE, SKIPPED)
        self.limiter = ModelLimiter(self.clock)
        self.accepted: Counter[tuple[int, int]] = Counter()
        self.fleet = Fleet(self.clock, self.api, self.ledger, self.limiter, self.accepted)
        for node in ("node-a", "node-b"):
            self.api.put("nodes", {"metadata": {"name": node}, "status": {"conditions": [READY]}})
        relay = {"host": "smtp.example.com", "limits": {"rate": "1000/s"}}
        self.api.put("emailrelays", {"metadata": {"name": "ses", "namespace": NAMESPACE}, "spec": relay})
        self.hashes: dict[str, Body] = {}
        self.approved: Counter[str] = Counter()
        """The highest canary step that was ever approved, by runId."""
        self.left_over: dict[str, int] = {}
        self.older: Counter[str] = Counter()
        """What was approved in the manifest with which a campaign was applied anew for another run, by runId: as long
        as nothing else was said; and whatever was said since."""
        self.applied_at = self.clock.now
        self.apply(SPEC)
        self.operators: list[OperatorProcess | None] = [None]
        self.told: list[str] = []

    # --- a person -------------------------------------------------------------------------------------------
    @property
    def campaign(self) -> Body | None:
        return self.api.get("emailcampaigns", NAME)

    def apply(self, spec: Body) -> bool:
        """As kubectl apply; False: the API server refuses it, by the rules of the CRD."""
        if (old := self.campaign) is None:
            self._meant(spec)
            self.applied_at = self.clock.now
            meta = {"name": NAME, "namespace": NAMESPACE, "generation": 1}
            self.api.put("emailcampaigns", {"metadata": meta, "spec": spec})
            return True
        if spec == old["spec"]:
            return True
        if not self._allowed(old, spec):
            return False
        self._meant(spec)
        meta = {**old["metadata"], "generation": old["metadata"]["generation"] + 1}
        self.api.put("emailcampaigns", {**old, "metadata": meta, "spec": spec})
        return True

    def _meant(self, spec: Body) -> None:
        self.hashes.setdefault(Campaign.model_validate(spec).definition_hash(), spec)
        approved, run_id = (spec.get("canary") or {}).get("approvedStep", 0), spec["runId"]
        ids = {r.row["run_id"] for r in self.ledger.runs.values()}
        if self.campaign is None and ids and run_id not in ids:
            self.left_over[run_id] = self.older[run_id] = approved
        if approved != self.left_over.get(run_id):
            self.left_over.pop(run_id, None)
            self.approved[run_id] = max(approved, self.approved[run_id])

    @staticmethod
    def _allowed(old: Body, spec: Body) -> bool:
        before, status = old["spec"], old.get("status") or {}
        same_run = before["runId"] == spec["runId"]
        canary, canary_before = spec.get("canary") or {}, before.get("canary") or {}
        approved = canary.get("approvedStep", 0)
        if approved > len(canary.get("steps", ())) or (approved and not same_run):
            return False
        if "approvedStep" in canary and approved < canary_before.get("approvedStep", 0):
            return False
        if spec.get("resumeTime", "9") < before.get("resumeTime", ""):
            return False
        if before.get("cancel") and not spec.get("cancel") and same_run:
            return False
        begun = bool(status.get("startTime")) and status.get("runId", before["runId"]) == before["runId"]
        if not begun:
            return True
        ended = any(c["type"] in {"Complete", "Failed"} and c["status"] == "True" for c in status.get("conditions", ()))
        if not same_run:
            return ended
        if {**canary, "approvedStep": 0} != {**canary_before, "approvedStep": 0}:
            return False
        return all(before.get(f) == spec.get(f) for f in ("recipients", "message", "relayRef", "rangeSize"))

    def edit(self, **changes: Any) -> bool:
        """Change fields of the spec; None takes one out. A canary's fields are merged, as kubectl patch does."""
        if (body := self.campaign) is None:
            return False
        if changes.get("canary"):
            changes["canary"] = merged(body["spec"].get("canary"), changes["canary"]) or None
        return self.apply({k: v for k, v in {**body["spec"], **changes}.items() if v is not None})

    # --- time -----------------------------------------------------------------------------------------------
    def tick(self, seconds: float = 2.0, steps: int = 1) -> None:
        """Time passes for everybody, then each operator looks; a dead one is started again."""
        for _ in range(steps):
            self.clock.seconds += seconds / steps
            self.fleet.step()
        self.look()

    def look(self, *, once: bool = False) -> None:
        for place, operator in enumerate(self.operators):
            try:
                if operator is None:
                    operator = self.operators[place] = OperatorProcess(self)  # noqa: PLW2901
                operator.tick()
                if operator.again and not once:
                    operator.look()
            except OperatorDiedError as death:
                self.told.append(str(death))
                self.operators[place] = None

    @property
    def changes(self) -> int:
        """Of what the operator can change."""
        return self.api.changes + self.ledger.changes + self.limiter.changes

    def converge(self, rounds: int = 12) -> None:
        """Nobody else moves and no time passes: the operator must come to rest. Two operators do nothing more either,
        but each says in the status what it remembers, such as since when nothing moved.

        Raises:
            AssertionError: it goes on and on.
        """
        for _ in range(rounds):
            before, told = self.changes, self.api.told
            self.look(once=True)
            said = self.api.told - told if len(self.operators) > 1 else 0
            if self.changes - said == before:
                break
        else:
            raise AssertionError(f"the operator does not come to rest; {self.explain()}")

    def lose_node(self, *, lives: bool) -> None:
        """One of the two nodes is gone for the API server; what runs there may live on, unheard."""
        if self.fleet.lost_nodes:
            return
        self.fleet.lost_nodes.add("node-a")
        self.api.remove("nodes", "node-a")
        for pod in list(self.fleet.pods.values()):
            if pod.node == "node-a" and not pod.ended:
                if not lives:
                    pod.process, pod.range, pod.claimed, pod.sent = False, None, [], {}
                self.fleet.delete_pod(pod)

    def make_reachable(self) -> None:
        """Whoever the operator asks answers, and the watches bring all."""
        self.fleet.ledger_away = self.limiter.away = False
        for operator in self.operators:
            if operator:
                operator.watches.held.clear()
                operator.refusals.clear()
                operator.wire.reset()

    def end_faults(self) -> None:
        """Also a person mends what only a person can: a pause, a reused runId, a deleted campaign."""
        self.make_reachable()
        self.clock.offset = 0.0
        self.limiter.exhausted_until = None
        self.fleet.planners_fail = 0
        if "refused" in self.fleet.moods or self.fleet.moods == ["deferred"]:
            self.fleet.moods = ["sent", "deferred"]
        if self.campaign is None:
            self.apply(SPEC)
        self.edit(suspend=None)
        run = next((r for r in self.ledger.runs.values() if r.row["run_id"] == self._run_id), None)
        if run and self.campaign:
            spec, meant = self.campaign["spec"], self.hashes[run.row["definition_hash"]]
            if Campaign.model_validate(spec).definition_hash() != run.row["definition_hash"]:
                as_meant = {k: meant.get(k) for k in ("message", "canary")}
                self.apply({k: v for k, v in {**spec, **as_meant}.items() if v is not None})

    def do_as_told(self) -> None:
        """A person does what the status asks for: approves a canary step, mends the cause of a pause and says so,
        deletes pods that belong to no Job."""
        conditions = ((self.campaign or {}).get("status") or {}).get("conditions", ())
        for condition in conditions:
            if condition["reason"] == "WaitingForApproval" and (body := self.campaign):
                step = re.search(r"approvedStep to (\d+)", condition["message"])
                assert step, condition
                if "canary" in body["spec"]:
                    older = "take it out first" in condition["message"] and "approvedStep" in body["spec"]["canary"]
                    self.edit(canary={"approvedStep": None if older else int(step[1])})
            elif condition["reason"] in {"BrakeApplied", "SenderFault"} and condition["status"] == "True":
                at = re.search(r"resumeTime to (\S+)", condition["message"])
                assert at, condition
                self.edit(resumeTime=at[1])
        if any(c["reason"] == "PodsOrphaned" and c["status"] == "True" for c in conditions):
            jobs = {b["metadata"]["uid"] for b in self.api.objects["jobs"].values()}
            for pod in list(self.fleet.pods.values()):
                if pod.job_uid not in jobs:
                    self.fleet.delete_pod(pod)

    @property
    def _run_id(self) -> str:
        return str(self.campaign["spec"]["runId"]) if self.campaign else ""

    def until_ended(self, rounds: int = 400) -> None:
        """Time passes, faster where nothing happens, until the run has ended and nothing is left of it.

        Raises:
            AssertionError: it does not end.
        """
        pause = 14.0
        for _ in range(rounds):
            before = self.changes, self.fleet.changes
            self.tick(pause, steps=7)
            self.do_as_told()
            self.check()
            if self.ended():
                return
            pause = 14.0 if (self.changes, self.fleet.changes) != before else min(3 * pause, 1800.0)
        raise AssertionError(f"it does not end; {self.explain()}")

    # --- what must hold -------------------------------------------------------------------------------------
    def ended(self) -> bool:
        """The run that the spec means is over, the status says so, and nothing is at work or remembered."""
        body = self.campaign
        if body is None:
            return False
        run = next((r for r in self.ledger.runs.values() if r.row["run_id"] == body["spec"]["runId"]), None)
        if run is None or run.row["ended_at"] is None or run.open or any(self.ledger.late([run.id])):
            return False
        if any(p.process for p in self.fleet.pods.values()):
            return False
        type_ = "Complete" if run.state is RunState.COMPLETE else "Failed"
        status = body.get("status") or {}
        said = any(c["type"] == type_ and c["status"] == "True" for c in status.get("conditions", ()))
        true = {f: getattr(run.totals(), f) for f in Totals.__dataclass_fields__}
        jobs = [b for b in self.api.objects["jobs"].values() if not (b.get("status") or {}).get("conditions")]
        return said and status.get("recipients") == true and not jobs and WHO not in self.limiter.told

    def check(self) -> None:
        """The promises, at any moment."""
        for run in self.ledger.runs.values():
            totals = run.totals()
            assert totals.adds_up, (totals, self.explain())
            for key, verdict in run.verdict.items():
                took = self.accepted[run.id, key]
                assert took <= 1, f"recipient {key} got {took} mails of one run; {self.explain()}"
                assert verdict != "sent" or took == 1, f"recipient {key} counts as sent; {self.explain()}"
                if took and verdict not in {"sent", "uncertain"}:
                    knows = any(key in r.claimed or key in r.late for r in run.ranges)
                    assert knows, f"recipient {key} got a mail, and is {verdict}; {self.explain()}"
            if run.state is RunState.COMPLETE:
                assert not run.open, self.explain()
                assert set(run.verdict) == set(run.audience), self.explain()
                assert not set(run.verdict.values()) & {"deferred", "cancelled"}, self.explain()
        assert not self.fleet.after_the_end, f"sent after the end: {self.fleet.after_the_end}; {self.explain()}"
        for owners in self.fleet.owners().values():
            assert len(owners) == 1, f"two senders at one range: {[p.name for p in owners]}; {self.explain()}"
        under_way = [r for r in self.ledger.runs.values() if r.row["started_at"] and r.row["ended_at"] is None]
        assert len(under_way) <= 1, f"two runs of one campaign are under way; {self.explain()}"
        if under_way and (body := self.campaign) and under_way[0].row["run_id"] == body["spec"]["runId"]:
            told = (body.get("status") or {}).get("startTime")
            fixed = told or under_way[0].row["started_at"] <= self.applied_at  # at one moment: it was there first
            assert fixed, f"it is under way, and the API server takes another message; {self.explain()}"
        self._check_canaries()
        self._check_status()

    def _check_canaries(self) -> None:
        for run in self.ledger.runs.values():
            touched = [r for r in run.ranges if r.wave in run.held and r.epoch]
            assert not touched, f"a wave that waits for a canary step is at work: {touched}; {self.explain()}"
            for step, became in run.passed:
                over = became["failed"] * 100 > CANARY["maxFailedPercent"] * became.total()
                approved = step <= self.approved[run.row["run_id"]]
                if len(self.operators) > 1:  # the other one may look at an older version still
                    approved = approved or step <= self.older[run.row["run_id"]]
                assert approved or not over, f"step {step} passed with {became}, and nobody approved; {self.explain()}"

    def _check_status(self) -> None:
        status = (self.campaign or {}).get("status") or {}
        if counts := status.get("recipients"):
            rest = sum(v for k, v in counts.items() if k != "planned")
            assert counts["planned"] == rest, f"the status does not add up: {counts}"
        conditions = {c["type"]: c for c in status.get("conditions", ())}
        if conditions:
            both = conditions["Complete"]["status"] == conditions["Failed"]["status"] == "True"
            assert not both, f"both Complete and Failed: {conditions}"
            done = conditions["Complete"]["status"] == "True"
            assert not (done and status.get("recipients", {}).get("remaining")), f"Complete, with some left: {status}"

    def check_rest(self) -> None:
        """What must hold once the operator has come to rest, with fresh watches and everybody reachable."""
        body = self.campaign
        run = next((r for r in self.ledger.runs.values() if body and r.row["run_id"] == body["spec"]["runId"]), None)
        if body is None or run is None or run.state is not RunState.OPEN:
            return
        self._check_paused(run, body)
        if body["spec"].get("suspend") or body["spec"].get("cancel") or run.row["pause_reason"]:
            at_work = [
                name
                for name, job in self.api.objects["jobs"].items()
                if job["metadata"]["annotations"]["mailfleet.dev/run"] == str(run.id)
                # A planner may come too late: one that lived on, on a lost node, has planned. It finds that and ends.
                and job["metadata"]["labels"][names.LABEL_COMPONENT] != PLANNER
                and not job["spec"].get("suspend")
                and not (job.get("status") or {}).get("conditions")
                and "deletionTimestamp" not in job["metadata"]
                and job["metadata"].get("ownerReferences", [{}])[0].get("uid") == body["metadata"]["uid"]
            ]
            assert not at_work, f"paused, yet at work: {at_work}; {self.explain()}"
            told = self.limiter.told.get(WHO, {}).get("paused")
            again = self.clock.seconds - self.limiter.emptied_at > apply.TELL_AGAIN_SECONDS
            reused = Campaign.model_validate(body["spec"]).definition_hash() != run.row["definition_hash"]
            assert told or not again or reused, f"the limiter was not told; {self.explain()}"

    def _check_paused(self, run: Run, body: Body) -> None:
        """What the relay or the brake has said is written down: or something that comes first is in the way."""
        since, spec = run.row["resumed_at"] or run.row["started_at"], body["spec"]
        refused = any(r.reason is ReportReason.SENDER_FAULT and r.at > since for r in run.reports.values())
        same = Campaign.model_validate(spec).definition_hash() == run.row["definition_hash"]
        ends = spec.get("cancel") or (spec.get("schedule") or {}).get("endTime")
        older = any(r.row["ended_at"] is None for r in self.ledger.runs.values() if r is not run)
        if (refused or WHO in self.limiter.braked) and (run.open or run.deferred) and same and not ends and not older:
            assert run.row["pause_reason"], f"refused or braked, and it is no pause; {self.explain()}"

    def explain(self) -> str:
        """For a failure's report."""
        status = (self.campaign or {}).get("status") or {}
        said = {c["type"]: f"{c['status']}/{c['reason']}: {c['message']}" for c in status.get("conditions", ())}
        runs = [(r.row["run_id"], str(r.state), r.totals(), [(w, str(k[0])) for w, k in r.waves.items()],
                 [(x.wave, x.index, x.state, x.owner) for x in r.open]) for r in self.ledger.runs.values()]  # fmt: skip
        jobs = {n: (b["spec"].get("suspend"), b.get("status")) for n, b in self.api.objects["jobs"].items()}
        return "\n".join(
            [
                f"at {self.clock.seconds:.0f} s",
                f"spec {(self.campaign or {}).get('spec')}",
                f"status {said}",
                f"runs {runs}",
                f"jobs {jobs}",
                f"pods {self.fleet.as_words()}",
                f"limiter {self.limiter.told}",
                f"died at {self.told}",
            ]
        )


READY = {"type": "Ready", "status": "True"}


def remembered(function: Callable[[Any], T]) -> Callable[[Any], T]:
    """The same function of a frozen value, worked out once for each of the last values: a fifth of a look's time."""
    known: dict[int, tuple[Any, T]] = {}

    def look_up(value: Any) -> T:
        found = known.get(id(value))
        if found is None or found[0] is not value:
            if len(known) >= 100:
                known.clear()
            found = known[id(value)] = value, function(value)
        return found[1]

    return look_up


@contextmanager
def virtual_time() -> Iterator[None]:
    """The operator's modules ask this world for the time."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (observe, reconcile, apply):
            for name in ("datetime", "time"):
                if hasattr(module, name):
                    patch.setattr(module, name, OperatorTime)
        patch.setattr(Campaign, "definition_hash", remembered(Campaign.definition_hash))
        conditions: Any = Status.conditions.fget  # type: ignore[attr-defined]
        patch.setattr(Status, "conditions", property(remembered(conditions)))
        yield


def ledger_unavailable() -> LedgerUnavailable:
    """What a lost answer of the ledger looks like."""
    return LedgerUnavailable("the model lost the answer")
