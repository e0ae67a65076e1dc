"""A fleet of pods in virtual time: the real reserve.lua in a real Redis, with a clock that the test moves.

The script's one line that reads Redis TIME is replaced by one more argument; all else is what runs in a cluster:
the script, the reading of its replies, the appetite. Pods are events in a heap and keep the client rules of LIMITER.
"""

from __future__ import annotations

import heapq
import itertools
import random
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import redis

from mailfleet_sender.contract.rate import Rate
from mailfleet_sender.limiter import ANY, Appetite, LimiterAdmin, Permits, Refusal, Report, Slot, Why
from mailfleet_sender.limiter.account import read_account
from mailfleet_sender.limiter.keys import Keys
from mailfleet_sender.limiter.limits import BUCKET_SECONDS, AccountLimits
from mailfleet_sender.limiter.permits import LACKS_USAGE, answered
from mailfleet_sender.limiter.report import wants
from mailfleet_sender.limiter.scripts import LIMITS, RESERVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailfleet_sender.limiter import AccountState

CLOCK = "local time = redis.call('TIME')\n"
VIRTUAL_CLOCK = "local time = {string.match(table.remove(ARGV), '(%d+) (%d+)')}\n"
BEGIN = 1_790_000_000_000_000
"""Redis TIME at virtual time 0, microseconds: sixteen digits, as the real one."""
ACCOUNT = "team/relay"


class VirtualFleet:
    """One relay account and its pods.

    Attributes:
        now: virtual seconds since the beginning.
        clock_offset: seconds that Redis' clock was stepped by.
        admin: the operator's hands.
        calls: of the script.
    """

    def __init__(self, url: str, rate: str, *, seed: int = 7) -> None:
        self.redis = redis.Redis.from_url(url)
        self.redis.flushall()
        assert RESERVE.count(CLOCK) == 1
        self._script = self.redis.register_script(RESERVE.replace(CLOCK, VIRTUAL_CLOCK))
        self.admin = LimiterAdmin(self.redis)
        self.random = random.Random(seed)
        self.now, self.clock_offset, self.calls = 0.0, 0.0, 0
        self.pods: list[Pod] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._version = 0
        self._limits: dict[str, Any] = {}
        self._write_limits = self.redis.register_script(LIMITS)
        self.set_rate(rate)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.redis.close()

    # --- what the test does -------------------------------------------------------------------------
    def set_rate(self, rate: str) -> None:
        """The operator changes the limit."""
        self.rate = Rate.parse(rate)
        self.set()

    def set(self, **limits: Any) -> None:
        """The operator changes `domains`, `quota` or `connections`, as `LimiterAdmin.write_limits` takes them."""
        self._version += 1
        self._limits |= limits
        self.seed()

    def seed(self) -> None:
        """Write the limits of the ledger's row, as a sender does when Redis has none."""
        keys = Keys(ACCOUNT)
        values = AccountLimits(self.rate, **self._limits).arguments(self._version, self.moment(self.now))
        self._write_limits(keys=[keys.limits, keys.quota], args=values)

    def recorded(self) -> list[tuple[datetime, int]]:
        """What the ledger's usage says now: mails by the five minutes in which they were sent."""
        buckets = Counter(int(BEGIN / 1e6 + t) // BUCKET_SECONDS for t in self.used(until=self.now))
        return [(datetime.fromtimestamp(b * BUCKET_SECONDS, UTC), n) for b, n in buckets.items()]

    def state(self) -> AccountState:
        """What the operator sees."""
        keys = Keys(ACCOUNT)
        limits, state, pods, quota, outcomes = (
            {k.decode(): v.decode() for k, v in self.redis.hgetall(key).items()}
            for key in (keys.limits, keys.state, keys.pods, keys.quota, keys.outcomes)
        )
        now = BEGIN + round((self.now + self.clock_offset) * 1e6)
        return read_account(limits, state, pods, now, quota=quota, outcomes=outcomes)

    def moment(self, seconds: float) -> datetime:
        """Redis TIME at a virtual time."""
        return datetime.fromtimestamp(BEGIN / 1e6 + seconds, UTC)

    def pod(self, campaign: str = "a", **settings: Any) -> Pod:
        """A pod that begins to ask at `start` (default: within 0.3 s of now)."""
        start = settings.pop("start", self.now + 0.3 * self.random.random())
        pod = Pod(self, campaign, f"pod-{len(self.pods)}", **settings)
        self.pods.append(pod)
        self.at(start, pod.begin)
        return pod

    def run(self, until: float) -> None:
        """Let virtual time pass."""
        while self._events and self._events[0][0] <= until:
            moment, _, event = heapq.heappop(self._events)
            self.now = max(self.now, moment)
            event()
        self.now = until

    # --- what came of it ------------------------------------------------------------------------------
    def used(self, since: float = 0.0, until: float = 1e9, campaign: str | None = None) -> list[float]:
        """When permits were used, in order."""
        return sorted(
            t for pod in self.pods if campaign in (None, pod.campaign) for t in pod.used if since <= t < until
        )

    def mean(self, since: float, until: float, campaign: str | None = None) -> float:
        """Permits used a second."""
        return len(self.used(since, until, campaign)) / (until - since)

    def dropped(self) -> int:
        """Permits that nobody used."""
        return sum(pod.starved + pod.lapsed for pod in self.pods)

    # --- for the pods ---------------------------------------------------------------------------------
    def at(self, moment: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._order), event))

    def reserve(self, pod: Pod, elapsed: int, want: int) -> Any:
        time = BEGIN + round((self.now + self.clock_offset) * 1e6)
        self.calls += 1
        report, pod.report = pod.report, Report()
        ready = [*wants(want, pod.ready(want))]
        clock = f"{time // 1_000_000} {time % 1_000_000}"
        arguments = [pod.campaign, pod.name, elapsed, want, *report.arguments(), *ready, clock]
        return self._script(keys=Keys(ACCOUNT).all, args=arguments)


@dataclass(eq=False)
class Pod:
    """One sender process.

    Attributes:
        per_second: mails that its connections can take; None: any number.
        rows_per_second: rows that it gets to send; None: any number.
        sleeps_on_quota: seconds at most that it waits longer than told when the quota is used up: a day passes quickly.
        rows_of: the domain of all its rows.
        mix: share of each domain among its rows, `ANY` for those without a limit; None: there is no limit.
        round_trip: least and greatest time to Redis and back, seconds.
        used: when permits were used.
        starved: permits dropped because no connection was free.
        lapsed: permits dropped because the process was paused.
        used_for: when permits were used, by domain.
        deferred: rows that did not wait for their domain.
        relay: called with the pod and the moment of each mail: counts in `report` what the relay says of it.
        refusals: why it got none, each time.
    """

    fleet: VirtualFleet
    campaign: str
    name: str
    per_second: float | None = None
    rows_per_second: float | None = None
    sleeps_on_quota: float = 0.0
    rows_of: str = ANY
    mix: dict[str, float] | None = None
    round_trip: tuple[float, float] = (0.0004, 0.002)
    used: list[float] = field(default_factory=list)
    starved: int = 0
    lapsed: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    granted: list[int] = field(default_factory=list)
    report: Report = field(default_factory=Report)
    connections: int | None = None
    used_for: dict[str, list[float]] = field(default_factory=dict)
    deferred: int = 0
    relay: Callable[[Pod, float], None] | None = None
    gone: bool = False
    stalled_until: float = 0.0
    busy_until: float = 0.0
    _born: float = 0.0
    _asking: bool = False
    _not_begun: int = 0
    _last_call: float | None = None
    _appetite: Appetite = field(default_factory=Appetite)
    _waiting: Counter[str] = field(default_factory=Counter)

    def begin(self) -> None:
        self._born = self.fleet.now
        self._ask()

    def stall(self, seconds: float) -> None:
        """The process stands still, as under a debugger or a starved CPU."""
        self.stalled_until = self.fleet.now + seconds

    def ready(self, want: int) -> dict[str, int]:
        """Rows that are ready, by domain; reads on until there are enough for any, and defers as senders do."""
        if self.mix is None:
            return {self.rows_of: want}
        batches = 2 * max(2, self.granted[-1] if self.granted else 0)
        while self._waiting[ANY] < want:
            (domain,) = self.fleet.random.choices(list(self.mix), list(self.mix.values()))
            if domain != ANY and self._waiting[domain] >= batches:
                self.deferred += 1
            else:
                self._waiting[domain] += 1
        return dict(self._waiting)

    def _ask(self) -> None:
        fleet = self.fleet
        if self.gone or self._asking or self._not_begun:
            return None
        if (free := max(self.stalled_until, self.busy_until)) > fleet.now:
            return fleet.at(free, self._ask)
        want = self._appetite.want
        if self.rows_per_second is not None:
            taken = sum(self.granted)
            want = min(want, int((fleet.now - self._born) * self.rows_per_second + 1e-9) - taken)
            if want < 1:
                return fleet.at(self._born + (taken + 1) / self.rows_per_second + 1e-6, self._ask)
        self._asking = True
        called = fleet.now
        elapsed = round((called - self._last_call) * 1e6) if self._last_call is not None else 0
        self._last_call = called
        there, back = (fleet.random.uniform(*self.round_trip) / 2 for _ in range(2))

        def arrived() -> None:
            reply = fleet.reserve(self, elapsed, want)
            fleet.at(fleet.now + back, lambda: self._answered(called, reply))

        return fleet.at(called + there, arrived)

    def _answered(self, called: float, reply: Any) -> None:
        fleet = self.fleet
        if self.stalled_until > fleet.now:
            return fleet.at(self.stalled_until, lambda: self._answered(called, reply))
        self._asking = False
        answer = answered(reply, called_at=called, received_at=fleet.now, draw=fleet.random.random())
        if reply[0] == LACKS_USAGE:
            fleet.admin.write_usage(ACCOUNT, fleet.recorded())
        if answer is None:
            fleet.seed()
            return self._ask()
        self.connections = answer.connections
        if isinstance(answer, Refusal):
            self.refusals.append(answer)
            sleep = self.sleeps_on_quota * fleet.random.random() if answer.why is Why.QUOTA else 0.0
            return fleet.at(fleet.now + answer.after_seconds + sleep, self._ask)
        self._not_begun += 1
        self.granted.append(answer.count)
        for k, slot in enumerate(answer.slots()):
            if self.mix is not None:
                self._waiting[slot.domain] -= 1
            self._expect(answer, slot, is_first=k == 0)
        return None

    def _expect(self, permits: Permits, slot: Slot, *, is_first: bool) -> None:
        def begin() -> None:
            if self.stalled_until > self.fleet.now:
                return self.fleet.at(self.stalled_until, begin)
            if is_first:
                self._appetite.granted(permits.count)
                self._not_begun -= 1
                self._ask()
            return self._use(permits, slot)

        self.fleet.at(slot.start, begin)

    def _use(self, permits: Permits, slot: Slot) -> None:
        now = self.fleet.now
        if self.stalled_until > now:
            return self.fleet.at(self.stalled_until, lambda: self._use(permits, slot))
        if self.busy_until > now and self.busy_until <= slot.end:
            return self.fleet.at(self.busy_until, lambda: self._use(permits, slot))
        if self.gone or now > slot.end:
            self.lapsed += 1
            self.report.give_back(permits.taken)
        elif self.busy_until > slot.end:
            self.starved += 1
            self._appetite.starved()
            self.report.give_back(permits.taken)
        else:
            at = min(slot.end, now + self.fleet.random.uniform(0, 0.001))
            self.used.append(at)
            self.used_for.setdefault(slot.domain, []).append(at)
            if self.per_second:
                self.busy_until = now + 1 / self.per_second
            if self.relay:
                self.relay(self, at)
        return None


def fullest_second(times: list[float], seconds: float = 1.0) -> int:
    """The greatest number of `times` (in order) in any window of `seconds`, open at its beginning."""
    most, first = 0, 0
    for last, time in enumerate(times):
        while times[first] <= time - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def in_force_after(times: list[float], change: float, enough: int, *, seconds: float = 1.0, limit: float = 20) -> float:
    """Seconds from `change` to the first window (in steps of 0.05 s) that holds at least `enough` of `times`."""
    for step in range(int(limit / 0.05)):
        begin = change + step * 0.05
        if bisect_left(times, begin + seconds) - bisect_left(times, begin) >= enough:
            return step * 0.05
    return float("inf")


def longest_silence(times: list[float]) -> float:
    """The longest time between two of `times`."""
    return max((b - a for a, b in itertools.pairwise(times)), default=float("inf"))
