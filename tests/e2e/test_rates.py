"""What is promised of rates, seen from outside on a real node: shares of one relay, an estimate that comes true, and a
fleet that follows its limit.
"""

from __future__ import annotations

import contextlib
import threading
import time
from bisect import bisect_left
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from e2e.stage import API
from mailfleet_demo.errors import CommandError
from mailfleet_demo.oracle import Limit
from mailfleet_demo.progress import condition
from mailfleet_operator.status import ETA_STEP
from services import PATIENCE
from simulated_fleet import Moment, turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.stage import Stage
    from mailfleet_demo.kubectl import Kubectl

OTHER = "favoured"
SPAN = 5.0


def test_two_campaigns_share_a_relay_by_their_weights(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("shares", rate="200/s", spec={"weight": 25, "rangeSize": 5_000})  # no pod starts in between
    stage.fill(1_500)
    stage.sql(f"CREATE TABLE {OTHER} (id bigint PRIMARY KEY, email text, first_name text)")
    rows = f"SELECT g, 'user' || g || '@{OTHER}.example', 'Zoë' FROM generate_series(1, 4500) g"
    stage.sql(f"INSERT INTO {OTHER} {rows}")
    stage.apply_relay()
    table = {"databaseSecretRef": {"name": "shop-db", "key": "url"}, "name": OTHER}
    favoured = {**stage.spec, "weight": 75, "recipients": {"table": table}}
    stage.kubectl.apply({"apiVersion": API, "kind": "EmailCampaign", "metadata": {"name": OTHER}, "spec": favoured})
    stage.apply()

    def other() -> dict[str, Any]:
        found: dict[str, Any] = stage.board.campaign(stage.namespace, OTHER).get("status") or {}
        return found

    stage.until_complete(seconds=120)
    stage.until("so is the other", lambda: condition(other(), "Complete").get("status") == "True", seconds=120)
    times = [
        sorted(e["time"] for e in of) for of in (stage.accepted(), stage.house.oracle.accepted(f"{OTHER}.example"))
    ]
    assert [len(of) for of in times] == [1_470, 4_500]
    begin, end = max(of[200] for of in times), min(of[-1] for of in times)
    light, heavy = (sum(begin < t < end for t in of) for of in times)
    assert light + heavy > 1_500, "both sent for a while"
    assert 0.73 < heavy / (light + heavy) < 0.77


def test_the_estimate_of_a_steady_campaign_comes_true(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("estimate", rate="80/s")
    stage.fill(6_000)
    stage.apply_relay()
    stage.apply()
    estimates = []
    for share in (0.25, 0.5, 0.75):
        stage.until(f"{share:.0%} are sent", lambda share=share: stage.count("sent") >= share * 6_000, seconds=60)
        estimates.append((datetime.now().astimezone(), datetime.fromisoformat(stage.status["estimatedCompletionTime"])))
    stage.until_complete()
    stage.balance()
    ended = datetime.fromisoformat(stage.status["completionTime"])
    for moment, estimate in estimates:
        off, left = abs((estimate - ended).total_seconds()), (ended - moment).total_seconds()
        assert off <= 0.2 * left + ETA_STEP, "within 20 %, and what it is rounded to"


class Parallelism:
    """How many senders each wave's Job was told to have, and when, as a watch shows it."""

    def __init__(self, kubectl: Kubectl) -> None:
        """Not watching yet; use it as a context manager."""
        self._kubectl, self._stop = kubectl, threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self.history: list[tuple[float, int]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def now(self) -> int:
        """What the newest version says; 0 before there is a Job."""
        return self.history[-1][1] if self.history else 0

    def _follow(self) -> None:
        selector = "app.kubernetes.io/component=sender"
        while not self._stop.is_set():
            with (
                contextlib.suppress(CommandError),  # the API server ends a watch now and then: begin again
                self._kubectl.watch("jobs", "--selector", selector) as following,
            ):
                while not self._stop.is_set():
                    if (job := following(0.5)) and job["spec"]["parallelism"] != self.now:
                        self.history.append((time.time(), job["spec"]["parallelism"]))


def mean(times: list[float], begin: float, end: float) -> float:
    """Mails a second between two moments."""
    return (bisect_left(times, end) - bisect_left(times, begin)) / (end - begin)


def test_a_fleet_follows_its_relay_s_limit_up_and_down(make_stage: Callable[..., Stage]) -> None:
    """200/s, 2,000/s, 200/s. The relay takes its time over each mail, so one sender does some 1,000/s."""
    low, high = Limit(200, 20), Limit(2000, 200)
    spec = {
        "rangeSize": 60_000,
        "senders": {"maxReplicas": 4},
    }  # none ends, so pods come and go by the law
    stage = make_stage("follows", rate=str(low), spec=spec)
    stage.fill(200_000)
    stage.house.oracle.behave({"phase": "dot", "delay": 0.008, "recipient": stage.domain})
    stage.apply_relay()

    def sending_at(limit: Limit) -> bool:
        current = float(str((stage.status.get("rate") or {}).get("current", "0/s")).removesuffix("/s"))
        return 0.95 * limit.per_second <= current <= 1.05 * limit.per_second

    def change(limit: Limit) -> float:
        stage.relay["limits"] = {"rate": str(limit)}
        stage.apply_relay()
        return time.time()

    with Parallelism(stage.kubectl) as fleet:
        stage.apply()
        stage.until("200/s are sent", lambda: sending_at(low), seconds=60)
        first, raised = fleet.now, change(high)
        stage.until("more senders send 2,000/s", lambda: fleet.now > first and sending_at(high), seconds=120)
        most, lowered = fleet.now, change(low)
        stage.until("fewer senders send 200/s", lambda: fleet.now < most and sending_at(low), seconds=170)
        ended = time.time()
        change(Limit(20_000, 2000))
        stage.house.oracle.behave()
        stage.until_complete(seconds=120)

    stage.balance()
    began = fleet.history[0][0]
    told = [(at - began, size) for at, size in fleet.history if at < ended]
    assert first < most, told
    assert [gap for _, gap in turns([Moment(int(at), 0, 0, size, 0) for at, size in told]) if gap < 60] == [], told

    times = sorted(e["time"] for e in stage.accepted())
    moments = (lowered + quarter / 4 for quarter in range(int(20 * PATIENCE)))
    follows = next((at for at in moments if holds(low, times, at, ended)), None)
    assert follows, "a lower limit holds within five seconds"
    assert holds(low, times, 0, raised)
    assert holds(high, times, raised, follows)
    best = max(mean(times, at, at + 10) for at in range(int(raised), int(lowered) - 10))
    shares = (best / 2000, mean(times, follows, ended) / 200)
    print(f"senders {told}; of the limit: {shares[0]:.1%} for ten seconds, lowered {shares[1]:.1%}")
    assert all(0.95 <= share <= 1.05 for share in shares), shares


def holds(limit: Limit, times: list[float], begin: float, end: float) -> bool:
    """Whether no five seconds between two moments had more than the limit and its burst. (A relay that takes its time
    over each mail bunches them on a busy machine, so a single second says more of the machine.)
    """
    within = times[bisect_left(times, begin) : bisect_left(times, end)]
    most = max((bisect_left(within, at + SPAN) - i for i, at in enumerate(within)), default=0)
    return most <= SPAN * 1.05 * limit.per_second + limit.burst
