"""Job controller, garbage collector, kubelets, and the processes in pods: planners and senders."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mailfleet_operator import names
from mailfleet_operator.conditions import time_text
from mailfleet_operator.observation import PLANNER
from mailfleet_sender.contract.accounts import ReportReason

from .ledger import LEASE, MARGIN, ModelLedger, Range

if TYPE_CHECKING:
    from collections import Counter

    from .api import ApiServer, Body
    from .clock import Clock
    from .limiter import ModelLimiter

GRACE = {PLANNER: 10.0, "sender": 60.0}
BACKOFF = 10.0
"""Before the pod of an index that failed by itself is replaced."""
BATCH = 3
CAMPAIGN = "marketing/autumn"


@dataclass(eq=False)
class Pod:
    """A pod and its process.

    Attributes:
        process: lives and works; on a lost node it may go on while nobody hears of it.
        sent: what the relay answered and is not recorded.
        lease_ends: by its own clock.
        refused: the relay has refused it as a sender.
    """

    name: str
    job: str
    job_uid: str
    component: str
    run: int
    wave: int
    index: int
    node: str
    uid: str = ""
    phase: str = "Pending"
    process: bool = False
    kill_at: float | None = None
    exit_code: int | None = None
    plan: int | None = None
    range: Range | None = None
    epoch: int = 0
    claimed: list[int] = field(default_factory=list)
    sent: dict[int, str] = field(default_factory=dict)
    lease_ends: float = 0.0
    refused: bool = False

    @property
    def ended(self) -> bool:
        return self.phase in {"Succeeded", "Failed"}

    @property
    def ending(self) -> bool:
        return self.kill_at is not None


@dataclass
class JobState:
    """What the Job controller remembers of a Job."""

    completed: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    wait_until: dict[int, float] = field(default_factory=dict)
    counted: set[str] = field(default_factory=set)


class Fleet:
    """All pods.

    Attributes:
        moods: what the relay says, one answer after another, over and over.
        accepted: (run, key) -> mails that the relay took.
        planners_fail: how many of the next planners end with a failure.
        changes: whatever happened here.
    """

    def __init__(self, clock: Clock, api: ApiServer, ledger: ModelLedger, limiter: ModelLimiter,
                 accepted: Counter[tuple[int, int]]) -> None:  # fmt: skip
        self._clock, self._api, self._ledger, self._limiter = clock, api, ledger, limiter
        self.accepted = accepted
        self.pods: dict[str, Pod] = {}
        self.states: dict[str, JobState] = {}
        self.lost_nodes: set[str] = set()
        self.ledger_away = False
        self.moods: list[str] = ["sent"]
        self.planners_fail = 0
        self.changes = self._made = self._answers = 0
        self.after_the_end: list[str] = []

    # --- one step of everybody ----------------------------------------------------------------------------
    def step(self) -> None:
        if not self.ledger_away:
            for pod in self.pods.values():
                if pod.process and pod.range and self._ledger.owns(pod.range, pod.epoch, pod.uid):
                    self._renew(pod)
        for pod in list(self.pods.values()):
            self._run(pod)
        self._collect()
        for body in list(self._api.objects["jobs"].values()):
            self._control(body)

    def _renew(self, pod: Pod) -> None:
        assert pod.range
        pod.range.lease_until = pod.lease_ends = self._clock.seconds + LEASE

    # --- the Job controller -------------------------------------------------------------------------------
    def _control(self, body: Body) -> None:  # noqa: C901 - as the controller: one case after another
        meta, spec = body["metadata"], body["spec"]
        conditions = (body.get("status") or {}).get("conditions") or ()
        state = self.states.setdefault(meta["uid"], JobState())
        mine = [p for p in self.pods.values() if p.job_uid == meta["uid"]]
        if "deletionTimestamp" in meta:  # deleted in the foreground: its pods first
            for pod in mine:
                self.delete_pod(pod)
            if not mine:
                self._api.remove("jobs", meta["name"])
            return None
        if conditions:
            return self._forget_old(body, mine)
        for pod in mine:
            if pod.ended and pod.uid not in state.counted:
                state.counted.add(pod.uid)
                self._count(state, pod)
        completions = spec.get("completions", 1)
        active = [p for p in mine if not p.ended and not p.ending]
        over = len(state.completed) + len(state.failed) >= completions
        if over and not [p for p in mine if not p.ended]:
            return self._end_job(body, state)
        if spec.get("suspend"):
            for pod in active:
                self.delete_pod(pod)
        elif not over:
            self._scale(body, state, active, [p for p in mine if not p.ended])
        self._report(body, state)
        return None

    def _count(self, state: JobState, pod: Pod) -> None:
        if pod.exit_code == 0:
            state.completed.add(pod.index)
        elif pod.exit_code == 78 or pod.component == PLANNER:
            state.failed.add(pod.index)
        elif not pod.ending:
            state.wait_until[pod.index] = self._clock.seconds + BACKOFF

    def _scale(self, body: Body, state: JobState, active: list[Pod], there: list[Pod]) -> None:
        parallelism = body["spec"].get("parallelism", 1)
        for pod in active[parallelism:]:
            self.delete_pod(pod)
        taken = {p.index for p in there} | state.completed | state.failed
        free = [
            i
            for i in range(body["spec"].get("completions", 1))
            if i not in taken and state.wait_until.get(i, 0.0) <= self._clock.seconds
        ]
        for index in free[: max(0, parallelism - len(there))]:
            self._make_pod(body, index)

    def _make_pod(self, body: Body, index: int) -> None:
        self._made += 1
        meta = body["metadata"]
        labels = meta["labels"]
        alive = [n for n in ("node-a", "node-b") if n not in self.lost_nodes]
        pod = Pod(
            name=f"{meta['name']}-{index}-{self._made}",
            job=meta["name"],
            job_uid=meta["uid"],
            component=labels[names.LABEL_COMPONENT],
            run=int(meta["annotations"][names.ANNOTATION_RUN]),
            wave=int(labels.get(names.LABEL_WAVE, 0)),
            index=index,
            node=alive[self._made % len(alive)],
        )
        self.pods[pod.name] = pod
        self._put(pod, labels)

    def _put(self, pod: Pod, labels: dict[str, str] | None = None) -> None:
        old = self._api.get("pods", pod.name)
        meta: Body = dict(old["metadata"]) if old else {"name": pod.name, "namespace": "marketing"}
        if labels is not None:
            own = {"batch.kubernetes.io/job-name": pod.job, "batch.kubernetes.io/controller-uid": pod.job_uid}
            meta["labels"] = {**labels, **own}
        status: Body = {"phase": pod.phase}
        if pod.phase == "Running":
            status["containerStatuses"] = [{"state": {"running": {}}}]
        elif pod.exit_code is not None:
            ended = {"exitCode": pod.exit_code, "finishedAt": time_text(self._clock.now)}
            status["containerStatuses"] = [{"state": {"terminated": ended}}]
        body = self._api.put("pods", {"metadata": meta, "spec": {"nodeName": pod.node}, "status": status})
        pod.uid = body["metadata"]["uid"]
        self.changes += 1

    def _end_job(self, body: Body, state: JobState) -> None:
        kind = "Failed" if state.failed else "Complete"
        condition = {"type": kind, "status": "True", "reason": "FailedIndexes" if state.failed else "",
                     "lastTransitionTime": time_text(self._clock.now)}  # fmt: skip
        self._write_status(body, {**self._status(body, state), "conditions": [condition]})

    def _report(self, body: Body, state: JobState) -> None:
        self._write_status(body, self._status(body, state))

    def _status(self, body: Body, state: JobState) -> Body:
        active = sum(1 for p in self.pods.values() if p.job_uid == body["metadata"]["uid"] and not p.ended)
        return {"active": active, "succeeded": len(state.completed), "failed": len(state.failed)}

    def _write_status(self, body: Body, status: Body) -> None:
        if status != body.get("status"):
            self._api.put("jobs", {**body, "status": status})
            self.changes += 1

    def _forget_old(self, body: Body, pods: list[Pod]) -> None:
        """ttlSecondsAfterFinished, roughly: an hour."""
        ended = body["status"]["conditions"][0]["lastTransitionTime"]
        if ended < str(time_text(type(self._clock)(self._clock.seconds - 3600).now)):
            self._api.remove("jobs", body["metadata"]["name"])
            self.changes += 1

    # --- the garbage collector ----------------------------------------------------------------------------
    def _collect(self) -> None:
        campaigns = {b["metadata"]["uid"] for b in self._api.objects["emailcampaigns"].values()}
        for name, body in list(self._api.objects["jobs"].items()):
            owners = body["metadata"].get("ownerReferences") or ()
            if owners and not any(o["uid"] in campaigns for o in owners):
                self._api.remove("jobs", name)
                self.changes += 1
        jobs = {b["metadata"]["uid"] for b in self._api.objects["jobs"].values()}
        for pod in list(self.pods.values()):
            orphan = (self._api.get("pods", pod.name) or {}).get("metadata", {}).get("orphan")
            if pod.job_uid not in jobs and not orphan:
                self.delete_pod(pod)

    def delete_pod(self, pod: Pod) -> None:
        """Deleted with its grace; gone at once if it has ended."""
        if pod.ended:
            self._remove(pod)
        elif not pod.ending:
            grace = GRACE[pod.component]
            pod.kill_at = self._clock.seconds + grace
            self._api.mark_deleted("pods", pod.name, grace)
            self.changes += 1

    def _remove(self, pod: Pod) -> None:
        if pod.process:
            # Its object is gone, its process is not: a lost node. It is kept as a ghost.
            self._api.remove("pods", pod.name)
            return
        self._api.remove("pods", pod.name)
        self.pods.pop(pod.name, None)
        self.changes += 1

    # --- kubelets and processes ---------------------------------------------------------------------------
    def end(self, pod: Pod, code: int) -> None:
        """The process ends by itself, or is killed."""
        pod.process, pod.range = False, None
        pod.claimed, pod.sent = [], {}
        self.changes += 1
        if pod.node in self.lost_nodes:
            return  # nobody says so
        pod.phase, pod.exit_code = ("Failed" if code else "Succeeded"), code
        if self._api.get("pods", pod.name):
            self._put(pod)

    def _run(self, pod: Pod) -> None:
        body = self._api.get("pods", pod.name)
        if body and body["status"]["phase"] == "Failed" and not pod.ended:
            pod.phase = "Failed"  # declared so by the operator
            self.changes += 1
        if pod.node in self.lost_nodes:
            if pod.process:
                self._work(pod)
            elif body is None:
                self.pods.pop(pod.name, None)
            return
        if pod.ended:
            if pod.ending or body is None:
                self._remove(pod)
            return
        if pod.phase == "Pending":
            if pod.ending:
                self.end(pod, 137)
                return
            pod.phase, pod.process = "Running", True
            self._put(pod)
            return
        if pod.kill_at is not None:
            self._terminate(pod)
        else:
            self._work(pod)

    def _terminate(self, pod: Pod) -> None:
        assert pod.kill_at is not None
        if pod.component == PLANNER:
            self.end(pod, 143)
        elif not pod.range:
            self.end(pod, 75)
        elif not self.ledger_away:
            if self._owned(pod):
                self._record(pod)
                if pod.range and pod.range.state == "Open":
                    self._ledger.drain(pod.range)
                self.end(pod, 75)
        elif self._clock.seconds >= pod.kill_at:
            self.end(pod, 137)

    def _work(self, pod: Pod) -> None:
        if self.ledger_away:
            return
        if pod.component == PLANNER:
            self._plan(pod)
        else:
            self._send(pod)

    def _plan(self, pod: Pod) -> None:
        run = self._ledger.runs[pod.run]
        if pod.plan is None:
            pod.plan = run.row["plan_wanted"]
            self.changes += 1
        elif self.planners_fail > 0:
            self.planners_fail -= 1
            self.end(pod, 1)
        else:
            self._ledger.publish(pod.run, pod.plan)
            self.end(pod, 0)

    def _owned(self, pod: Pod) -> bool:
        """Compare and set; a fenced sender leaves what it knows, and ends."""
        assert pod.range
        if self._ledger.owns(pod.range, pod.epoch, pod.uid):
            return True
        pod.range.late |= {k: v for k, v in pod.sent.items() if v != "deferred"}
        self.end(pod, 75)
        return False

    def _send(self, pod: Pod) -> None:
        if pod.range is None:
            got = self._ledger.acquire(pod.run, pod.wave, pod.index, pod.uid)
            if isinstance(got, Range):
                pod.range, pod.epoch, pod.lease_ends = got, got.epoch, self._clock.seconds + LEASE
                self.changes += 1
            elif got is None:
                self.end(pod, 0)
            return
        if not self._owned(pod):
            return
        if pod.sent or pod.refused:
            self._record(pod)
            if pod.range.state != "Open":
                self.end(pod, 0)
            elif pod.refused:
                self._ledger.drain(pod.range)
                self.end(pod, 75)
        elif pod.claimed:
            self._mail(pod)
        elif self._limiter.permits(CAMPAIGN):
            pod.claimed = self._ledger.claim(pod.range, BATCH)
            self.changes += 1

    def _mail(self, pod: Pod) -> None:
        assert pod.range
        if self._clock.seconds > pod.lease_ends - MARGIN:
            return
        run = self._ledger.runs[pod.run]
        if run.row["ended_at"] is not None:
            self.after_the_end.append(pod.name)
        for key in pod.claimed:
            self._answers += 1
            answer = self.moods[self._answers % len(self.moods)]
            if answer == "refused":
                pod.refused = True
                self._ledger.report(pod.run, pod.name, ReportReason.SENDER_FAULT, "530 5.7.0 log in first")
                break
            run.attempts[key] += 1
            if answer == "deferred" and run.attempts[key] >= 4:
                answer = "failed"  # retry.maxAgeSeconds
            self.accepted[pod.run, key] += answer == "sent"
            pod.sent[key] = answer
            self._limiter.report(CAMPAIGN, answer)
        pod.claimed = []
        self.changes += 1

    def _record(self, pod: Pod) -> None:
        assert pod.range
        if pod.sent:
            self._ledger.record(pod.run, pod.range, pod.sent, 60.0)
            self.changes += 1
        pod.sent = {}

    def owners(self) -> dict[int, list[Pod]]:
        """Who believes to own which range, and may use SMTP for it."""
        found: dict[int, list[Pod]] = {}
        for pod in self.pods.values():
            if pod.process and pod.range and self._clock.seconds <= pod.lease_ends - MARGIN:
                found.setdefault(id(pod.range), []).append(pod)
        return found

    def as_words(self) -> str:
        """For a failure's report."""
        return ", ".join(f"{p.name}:{p.phase}{'*' if p.process else ''}" for p in self.pods.values())
