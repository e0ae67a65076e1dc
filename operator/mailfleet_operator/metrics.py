"""What the operator tells Prometheus, after the conventions of kube-state-metrics (docs/decisions/0110).

A scrape shows what the last look at each campaign found, so the series of one that is deleted are gone at once.
Scrapes come from a thread of their own: what they read is only ever replaced as a whole.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from .conditions import parse_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from datetime import datetime

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from mailfleet_sender.limiter import AccountState

    from .observation import Observation, RelayView

    class Kinded(Protocol):
        """What is looked at; its kind is a label."""

        @property
        def kind(self) -> str: ...


K = TypeVar("K", bound="Kinded")
Name = tuple[str, str]
"""Namespace and name of a campaign or relay."""

LOOK_BOUNDS = (0.01, 0.05, 0.25, 1.0, 5.0)
"""Seconds; a look waits 20 ms for others and asks the ledger a few questions."""
KINDS = ("campaign", "relay", "namespace")
"""What is looked at: series that are there before the first failure show it."""
STATUSES = ("true", "false", "unknown")
OUTCOMES = ("sent", "failed", "suppressed", "skipped", "uncertain", "cancelled", "deferred", "remaining")
TIMES = {
    "start": ("startTime", "When sending began."),
    "completion": ("completionTime", "When the run became Complete or Failed."),
    "estimated_completion": (
        "estimatedCompletionTime",
        "When it will be complete at the present rate, if that is known.",
    ),
}


@dataclass(frozen=True, slots=True)
class Shown:
    """What one look at a campaign has found.

    Attributes:
        status: the whole status as it should be.
        relay: the name of its relay; empty if its spec cannot be read.
        per_second: recipients that come to a verdict, per second; None: the ledger does not tell.
        limit: of its relay, per second; 0: there is none.
        end_time: spec.schedule.endTime.
    """

    status: Mapping[str, Any]
    relay: str = ""
    per_second: float | None = None
    limit: float = 0.0
    end_time: datetime | None = None

    @classmethod
    def of(cls, o: Observation, status: Mapping[str, Any]) -> Shown:
        """What this observation says, and the status made of it."""
        spec = o.campaign.spec
        return cls(
            status=status,
            relay=spec.relay_ref.name if spec else "",
            per_second=o.pace.per_second if o.ledger else None,
            limit=o.limit,
            end_time=spec.schedule.end_time if spec else None,
        )


class OperatorMetrics(Collector):
    """All of the operator's series.

    Attributes:
        campaigns, relays, accounts: what was found last; replaced, never changed.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Registered, with nothing found yet."""
        self.campaigns: Callable[[], Mapping[Name, Shown]] = dict
        self.relays: Mapping[Name, RelayView] = {}
        self.accounts: Mapping[str, AccountState] = {}
        self._ledger = Gauge("mailfleet_ledger_up", "Whether the ledger answers the operator.", registry=registry)
        self._limiter = Gauge("mailfleet_limiter_up", "Whether the limiter answers the operator.", registry=registry)
        self.queue = Gauge("mailfleet_operator_queue_depth", "Keys that wait for a look.", registry=registry)
        self._looks = Histogram(
            "mailfleet_operator_reconcile_duration_seconds",
            "How long a look at a campaign, a relay or a namespace took.",
            ["kind"],
            buckets=LOOK_BOUNDS,
            registry=registry,
        )
        self._errors = Counter(
            "mailfleet_operator_reconcile_errors", "Looks that failed; each is repeated.", ["kind"], registry=registry
        )
        for kind in KINDS:
            self._looks.labels(kind)
            self._errors.labels(kind)
        registry.register(self)

    def ledger_answers(self, *, up: bool) -> None:
        """Whether the ledger answered just now."""
        self._ledger.set(up)

    def limiter_answers(self, *, up: bool) -> None:
        """The same of the limiter."""
        self._limiter.set(up)

    def timed(self, look: Callable[[K], Awaitable[None]]) -> Callable[[K], Awaitable[None]]:
        """The same look, counted and timed."""

        async def counted(key: K) -> None:
            began = time.monotonic()
            try:
                await look(key)
            except Exception:
                self._errors.labels(key.kind).inc()
                raise
            finally:
                self._looks.labels(key.kind).observe(time.monotonic() - began)

        return counted

    def collect(self) -> Iterator[Metric]:
        """As it was found last."""
        build = GaugeMetricFamily("mailfleet_operator_info", "The operator's version.", labels=["version"])
        build.add_metric([version("mailfleet")], 1)
        yield build
        yield from _of_campaigns(self.campaigns())
        yield from _of_relays(self.relays, self.accounts)


class _Families:
    """Gauges about one kind of object, with the labels that name it."""

    def __init__(self, prefix: str, labels: tuple[str, ...]) -> None:
        self._prefix, self._labels = prefix, labels
        self._made: dict[str, GaugeMetricFamily] = {}

    def declare(self, name: str, what: str, *labels: str) -> None:
        """There is such a gauge, also where it has no series."""
        self._made[name] = GaugeMetricFamily(f"{self._prefix}_{name}", what, labels=(*self._labels, *labels))

    def add(self, name: str, whose: Name, value: float | None, *labels: str) -> None:
        """One series of it; None: not known, so there is none."""
        if value is not None:
            self._made[name].add_metric((*whose, *labels), value)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._made.values())


def _of_campaigns(campaigns: Mapping[Name, Shown]) -> _Families:
    f = _Families("mailfleet_emailcampaign", ("namespace", "emailcampaign"))
    f.declare("info", "A campaign and its relay.", "relay")
    f.declare("status_condition", "Whether a condition holds, as in its status.", "condition", "status")
    f.declare("status_condition_reason", "The present reason of a condition.", "condition", "reason")
    f.declare("planned_recipients", "Recipients of the plan; the sum of those by outcome.")
    f.declare("recipients", "Recipients by outcome, from the ledger's totals.", "outcome")
    f.declare("ranges", "Pieces of work by state.", "state")
    f.declare("senders_desired", "Sender pods that are wanted.")
    f.declare("senders_active", "Sender pods that run.")
    f.declare("messages_per_second", "Recipients that come to a verdict, per second, over 20 s.")
    f.declare("limit_messages_per_second", "What the relay allows, to all its campaigns together.")
    for name, (_, what) in TIMES.items():
        f.declare(f"{name}_timestamp_seconds", what)
    f.declare("end_timestamp_seconds", "spec.schedule.endTime: sending ends then, done or not.")
    for whose, shown in campaigns.items():
        f.add("info", whose, 1, shown.relay)
        _add_conditions(f, whose, shown.status)
        _add_figures(f, whose, shown)
    return f


def _add_conditions(f: _Families, whose: Name, status: Mapping[str, Any]) -> None:
    for condition in status.get("conditions") or ():
        name, state = str(condition["type"]), str(condition["status"]).lower()
        for possible in STATUSES:
            f.add("status_condition", whose, float(state == possible), name, possible)
        if "reason" in condition:
            f.add("status_condition_reason", whose, 1, name, str(condition["reason"]))


def _add_figures(f: _Families, whose: Name, shown: Shown) -> None:
    status = shown.status
    recipients, ranges, senders = (status.get(name) or {} for name in ("recipients", "ranges", "senders"))
    f.add("planned_recipients", whose, recipients.get("planned"))
    for outcome in OUTCOMES:
        f.add("recipients", whose, recipients.get(outcome), outcome)
    if ranges:
        f.add("ranges", whose, ranges["finished"], "finished")
        f.add("ranges", whose, ranges["active"], "active")
        f.add("ranges", whose, ranges["total"] - ranges["finished"] - ranges["active"], "waiting")
    f.add("senders_desired", whose, senders.get("desired"))
    f.add("senders_active", whose, senders.get("active"))
    f.add("messages_per_second", whose, shown.per_second)
    f.add("limit_messages_per_second", whose, shown.limit or None)
    for name, (field, _) in TIMES.items():
        f.add(f"{name}_timestamp_seconds", whose, _seconds(parse_time(status.get(field))))
    f.add("end_timestamp_seconds", whose, _seconds(shown.end_time))


def _of_relays(relays: Mapping[Name, RelayView], accounts: Mapping[str, AccountState]) -> _Families:
    f = _Families("mailfleet_emailrelay", ("namespace", "relay"))
    f.declare("status_condition", "Whether a condition holds, as in its status.", "condition", "status")
    f.declare("status_condition_reason", "The present reason of a condition.", "condition", "reason")
    f.declare("limit_messages_per_second", "The rate that its limits allow.")
    f.declare(
        "effective_messages_per_second",
        "The rate that holds now: less than the limit for minutes after the relay throttled. While it is in use.",
    )
    f.declare("quota_messages", "Messages that the account's quota allows in its window. While it is in use.")
    f.declare("quota_used_messages", "Those that are used, by all relays of the account. While it is in use.")
    f.declare("pods", "Sender pods that asked for permits of its account in the last 3 s. While it is in use.")
    for whose, view in relays.items():
        _add_conditions(f, whose, view.status)
        if view.relay is None:
            continue
        f.add("limit_messages_per_second", whose, view.relay.rate.per_second)
        if (account := accounts.get(view.relay.account)) is None:
            continue
        f.add("effective_messages_per_second", whose, account.effective_per_second)
        f.add("pods", whose, account.pods)
        if account.quota:
            f.add("quota_messages", whose, account.quota.messages)
            f.add("quota_used_messages", whose, account.quota.used)
    return f


def _seconds(at: datetime | None) -> float | None:
    return at.timestamp() if at else None
