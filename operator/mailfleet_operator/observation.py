"""All that a decision may look at, read once and frozen. Pure.

`observe` makes an `Observation`; the policies of `plan` read it. Everything is a plain value, so a test
writes one down and needs no cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from mailfleet_sender.contract.accounts import RunState, Totals, WaveKind

from . import windows
from .conditions import Condition, Type, parse_time
from .pace import Pace
from .resources import Senders
from .scaling import Bounds, Memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mailfleet_sender.contract.accounts import Failure, PauseReason, Report
    from mailfleet_sender.contract.campaign import Campaign
    from mailfleet_sender.contract.relay import Relay

    from .resources import CampaignSpec, KeyReference
    from .windows import Opening

PLANNER = "planner"
SENDER = "sender"
PREFLIGHT = "preflight"


@dataclass(frozen=True, slots=True)
class Status:
    """What the campaign's status says now: what the operator wrote last."""

    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def run_id(self) -> str | None:
        """The run that it speaks of."""
        return self.raw.get("runId")

    @property
    def start_time(self) -> datetime | None:
        """When sending began."""
        return parse_time(self.raw.get("startTime"))

    @property
    def sent(self) -> int:
        """Mails that were reported as sent."""
        return int((self.raw.get("recipients") or {}).get("sent") or 0)

    @property
    def retried(self) -> int:
        """The generation of spec.retryFailed that it reports as done."""
        return int(self.raw.get("retryFailedGeneration") or 0)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions as values."""
        found = (Condition.from_manifest(c) for c in self.raw.get("conditions") or ())
        return tuple(c for c in found if c)

    def condition(self, type_: Type) -> Condition | None:
        """One of them."""
        return next((c for c in self.conditions if c.type is type_), None)


@dataclass(frozen=True, slots=True)
class CampaignView:
    """An EmailCampaign. `spec` and `definition` are None if `invalid` tells why they cannot be read."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    spec: CampaignSpec | None
    definition: Campaign | None
    invalid: str | None = None
    status: Status = Status()
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class RelayView:
    """An EmailRelay. `relay` is None if `invalid` tells why."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    relay: Relay | None
    invalid: str | None = None
    auth_secret: str | None = None
    ca: KeyReference | None = None
    status: Mapping[str, Any] = field(default_factory=dict)
    sharing: tuple[str, ...] = ()
    """The other relays of its account, namespace/name; `relay` then has the limits that hold for all of them."""
    lowered: str = ""
    """Which of its own limits do not hold, in words."""


@dataclass(frozen=True, slots=True)
class JobView:
    """A Job of ours."""

    namespace: str
    name: str
    uid: str
    owner_uid: str | None
    component: str
    run: int
    wave: int | None
    attempt: int
    made_for: str
    """Hash of the definition (plan Jobs) and of the Secrets that its pods read: see `manifests.made_for`."""
    image: str
    parallelism: int
    suspended: bool
    active: int = 0
    ready: int = 0
    succeeded: int = 0
    failed: int = 0
    complete: bool = False
    failed_reason: str | None = None
    failed_message: str = ""
    ended_at: datetime | None = None
    deleting: bool = False
    created_at: datetime | None = None

    @property
    def over(self) -> bool:
        """It will start no more pods."""
        return self.complete or self.failed_reason is not None

    def is_of(self, reporter: str) -> bool:
        """Whether it was a pod of this Job: they sign with their names, which begin with the Job's."""
        return reporter.startswith(f"{self.name}-")


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod of one of our Jobs."""

    namespace: str
    name: str
    uid: str
    job: str
    job_uid: str | None
    component: str
    phase: str
    node: str | None = None
    deletion_deadline: datetime | None = None
    """metadata.deletionTimestamp: the grace period is in it already."""
    ready: bool = False
    waiting_reason: str | None = None
    waiting_message: str = ""
    unschedulable: str | None = None
    exit_code: int | None = None
    exit_reason: str | None = None
    last_words: str = ""
    finished_at: datetime | None = None

    @property
    def alive(self) -> bool:
        """It may be using the ledger or SMTP now, or may come to."""
        return self.phase not in {"Succeeded", "Failed"}

    @property
    def running(self) -> bool:
        """Its container runs."""
        return self.phase == "Running" and self.waiting_reason is None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Kubernetes refused to make a pod of a Job (Event FailedCreate)."""

    namespace: str
    job: str
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Pause:
    """Why a run is paused until a person says that the cause is mended."""

    reason: PauseReason
    message: str
    at: datetime
    """When it happened, by the clock of whoever saw it."""


@dataclass(frozen=True, slots=True)
class RunView:
    """A run's row in the ledger."""

    id: int
    run_id: str
    state: RunState
    definition_hash: str
    started_at: datetime | None = None
    ended_at: datetime | None = None
    end_reason: str | None = None
    """Why it was ended as Failed."""
    retry_generation: int = 0
    """The generation of spec.retryFailed that was done last."""
    retried: int | None = None
    """To how many recipients it came; None: there was none, or a version did it that did not count."""
    approved_before: int | None = None
    """A spec.canary.approvedStep that is older than the run, and so does not speak of it."""
    pause: Pause | None = None
    paused_at: datetime | None = None
    """When the last pause happened, also one that is over."""
    resumed_at: datetime | None = None
    """When it ended."""
    snapshot_current: bool = True
    """Whether the stored policy (onUncertain, retry) is what the spec says."""

    @property
    def ended(self) -> bool:
        """It is over for good."""
        return self.state not in {RunState.PLANNING, RunState.PLANNED, RunState.OPEN}

    @property
    def started(self) -> bool:
        """Its pages are fixed: mail may have been sent."""
        return self.state not in {RunState.PLANNING, RunState.PLANNED}


@dataclass(frozen=True, slots=True)
class WaveView:
    """A wave of the run with the state of its ranges."""

    number: int
    kind: WaveKind
    ranges: int
    """Completions of its Job: ranges when it was made."""
    finished: int
    open: int
    """Ranges of this number that still need a pod; those moved into a Repair wave count there."""
    active: int = 0
    """Open ranges under a lease that holds."""
    held: bool = False
    """It waits for the canary step before it."""


@dataclass(frozen=True, slots=True)
class StepView:
    """A canary step, and what became of its recipients at their first attempt."""

    number: int
    """From 1; its wave has the same number."""
    held: bool
    planned: int
    open: int = 0
    """Its ranges that have not ended, in whichever wave they are."""
    ended_at: datetime | None = None
    """When it was noted that all of them have."""
    sent: int = 0
    failed: int = 0
    deferred: int = 0
    uncertain: int = 0
    code: str = ""
    """What most of those that failed failed with."""

    @property
    def tried(self) -> int:
        """Recipients of whom the relay was asked."""
        return self.sent + self.failed + self.deferred + self.uncertain


@dataclass(frozen=True, slots=True)
class Skipped:
    """Recipients that a plan skips for one reason; `lines`: where the first of them are in a file."""

    reason: str
    count: int
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LedgerView:
    """One snapshot of the campaign's runs."""

    run: RunView | None = None
    totals: Totals = field(default_factory=Totals)
    waves: tuple[WaveView, ...] = ()
    steps: tuple[StepView, ...] = ()
    """The canary's, while a wave waits for one of them."""
    older: tuple[RunView, ...] = ()
    """Other runs of the same campaign that are not over."""
    due: int = 0
    """Deferred recipients whose time has come."""
    next_due: datetime | None = None
    orphans: bool = False
    """Whether open ranges may have work in doubt and no owner."""
    late: int = 0
    """Outcomes that arrived after their range had ended."""
    reports: tuple[Report, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    """Why the plan skips recipients, and how many: until the run starts."""
    domains: tuple[tuple[str, int], ...] = ()
    """The most frequent domains of those who get mail, with percent: until the run starts."""
    file_read_at: datetime | None = None
    """When the plan read its file of recipients; None: they are a table."""
    failures: tuple[Failure, ...] | None = ()
    """The most frequent reasons of failed recipients, not older than a minute; None: not counted yet."""

    @property
    def at_work(self) -> tuple[WaveView, ...]:
        """Waves that may be sent now and have not ended."""
        return tuple(w for w in self.waves if w.open and not w.held)


@dataclass(frozen=True, slots=True)
class BrakeView:
    """The limiter has stopped the campaign by itself, and what it had counted."""

    since: datetime
    sent: int = 0
    failed: int = 0
    faults: int = 0
    """Refused for the sender's sake (5.7.x)."""

    @property
    def bad(self) -> int:
        """All that were refused for good."""
        return self.failed + self.faults

    @property
    def all(self) -> int:
        """All that were looked at."""
        return self.sent + self.bad


@dataclass(frozen=True, slots=True)
class Observation:
    """One campaign and all around it, at one moment."""

    now: datetime
    campaign: CampaignView
    ledger: LedgerView | None
    """None: the ledger does not answer, `ledger_trouble` says how."""
    ledger_trouble: str = ""
    namespace_terminating: bool = False
    relay: RelayView | None = None
    jobs: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    lost_nodes: frozenset[str] = frozenset()
    """Nodes of these pods that are gone or not Ready."""
    limiter_trouble: str | None = None
    """Why the limiter does not answer the operator; None: it does."""
    pace: Pace = field(default_factory=Pace)
    account_rate: float = 0.0
    """Recipients per second of all campaigns that share the relay's account."""
    brake: BrakeView | None = None
    """The brake has closed; None: it has not."""
    quota_room_at: datetime | None = None
    """The account's quota is used up until then; None: it is not."""
    quota_short_at: datetime | None = None
    """When it was last seen used up; None: not since the operator began."""
    quota_left: int | None = None
    """Messages that are free of it; None: it is the relay's own, of which nobody knows."""
    scaling: Memory = field(default_factory=Memory)
    image: str = ""
    """The sender's image as configured now."""
    max_senders: int | None = None
    """What the installation allows one campaign; None: anything."""
    require_start_time: bool = False
    """Whether the installation plans no campaign without startTime and startingDeadlineSeconds."""
    made_for_plan: str = ""
    made_for_send: str = ""
    """What a plan Job and a send Job made now would be made for: see `JobView.made_for`."""

    @property
    def own_jobs(self) -> tuple[JobView, ...]:
        """Jobs that belong to this very object, not to a deleted one of the same name."""
        return tuple(j for j in self.jobs if j.owner_uid == self.campaign.uid)

    def job(self, name: str) -> JobView | None:
        """The Job of that name, whoever owns it."""
        return next((j for j in self.jobs if j.name == name), None)

    def pods_of(self, job: JobView) -> tuple[PodView, ...]:
        """The pods of a Job."""
        return tuple(p for p in self.pods if p.job_uid == job.uid)

    @property
    def living_pods(self) -> tuple[PodView, ...]:
        """Pods of this campaign, of whatever Job, that may still be at work."""
        return tuple(p for p in self.pods if p.alive)

    @property
    def suspended(self) -> bool:
        """A person wants it to pause."""
        return bool(self.campaign.spec and self.campaign.spec.suspend)

    @property
    def paused(self) -> bool:
        """Brake or relay have paused it, and nobody has said that the cause is mended."""
        return bool(self.ledger and self.ledger.run and self.ledger.run.pause)

    @property
    def owes_nothing(self) -> bool:
        """Every range of an open run has ended, nothing is deferred or remaining, and nobody was cancelled: a run that
        is being closed does not come to be complete."""
        if not (self.ledger and self.ledger.run) or self.ledger.run.state is not RunState.OPEN:
            return False
        totals = self.ledger.totals
        return not (any(w.open for w in self.ledger.waves) or totals.remaining or totals.deferred or totals.cancelled)

    @property
    def opening(self) -> Opening | None:
        """The present opening of the schedule's windows; None: they are closed."""
        spec = self.campaign.spec
        return windows.present(spec.schedule, self.now) if spec else None

    @property
    def bounds(self) -> Bounds:
        """How many senders: what the spec says, as far as the installation allows it."""
        senders = self.campaign.spec.senders if self.campaign.spec else Senders()
        high = min(senders.max_replicas, self.max_senders or senders.max_replicas)
        return Bounds(senders.min_replicas, high)

    @property
    def held(self) -> bool:
        """No sender should be at work: a person wants a pause, something has paused it, or the windows are closed."""
        return self.suspended or self.paused or self.opening is None

    @property
    def limit(self) -> float:
        """The relay's limit, permits per second; 0 without a relay."""
        return self.relay.relay.rate.per_second if self.relay and self.relay.relay else 0.0


NODE_GRACE = timedelta(seconds=30)
"""How long past a pod's own deadline a lost node is given to come back."""
