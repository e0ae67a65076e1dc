"""Many campaigns at once: how soon each is looked at, what the operator needs, and what it asks of the API server.

A real API server without controllers, so that there are Jobs and no pods; a real ledger and Redis; the operator with
its usual times. The planners' part is played, and progress is written into the ledger, so that each status changes
all the time.
"""

from __future__ import annotations

import re
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import custom_resources
from kube import ControlPlane
from ledgers import PAGE, page
from mailfleet_sender.ledger import Planner, migrate
from operator_hand import Hand, OperatorProcess
from services import PostgresServer, RedisServer, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

PEOPLE = 2000
SECONDS, MEGABYTES, REQUESTS = 10.0, 250.0, 20.0
KINDS = "emailcampaigns|emailrelays|jobs|pods|nodes|namespaces|events"
METRIC = re.compile(rf'^apiserver_request_total{{.*resource="({KINDS})".*verb="([A-Z]+)".*}} ([0-9.e+]+)$')
PROGRESS = """
UPDATE range SET pos = pos + 1, sent = sent + 1, seq = seq + 1, epoch = greatest(epoch, 1)
WHERE state = 'Open' AND pos < planned - 1
"""


class Many:
    """One namespace with many campaigns."""

    def __init__(self, hand: Hand, count: int) -> None:
        self.hand, self.names = hand, [f"news-{n:03}" for n in range(count)]

    def apply(self, **spec: Any) -> None:
        """All of them, by one kubectl."""
        bodies = []
        for name in self.names:
            body = custom_resources.campaign(name)
            body["spec"].update({"rangeSize": 500, **spec})
            bodies.append(body)
        self.hand.apply(*bodies)

    def statuses(self) -> list[dict[str, Any]]:
        return [c for c in self.hand.list("emailcampaigns") if c.get("status")]

    def until(self, what: str, holds: Any) -> float:
        """Wait until all statuses are so; the seconds it took."""
        began = time.monotonic()
        wait_for(
            what, lambda: sum(bool(holds(c)) for c in self.statuses()) == len(self.names), seconds=120, interval=0.5
        )
        return time.monotonic() - began

    def first_looks(self) -> list[float]:
        """From a campaign's creation to its first condition, seconds; whole ones, for so are Kubernetes' times."""
        found = []
        for body in self.statuses():
            first = min(c["lastTransitionTime"] for c in body["status"]["conditions"])
            created = body["metadata"]["creationTimestamp"]
            found.append((datetime.fromisoformat(first) - datetime.fromisoformat(created)).total_seconds())
        return found

    def plan(self) -> None:
        """Play all planners: what they publish, without their reading."""
        planner, keys = Planner(self.hand.engine), [str(n) for n in range(1, PEOPLE + 1)]
        pages = [page(n, keys[at : at + PAGE]) for n, at in enumerate(range(0, PEOPLE, PAGE))]
        with self.hand.engine.connect() as connection:
            runs = connection.exec_driver_sql("SELECT id, spec_hash FROM run WHERE state = 'Planning'").all()
        for run, spec_hash in runs:
            plan = planner.start(run, spec_hash)
            assert plan
            planner.write(plan, pages)
            assert planner.publish(plan, PEOPLE, 0, "bigint")

    def progress(self) -> None:
        """Each open range has sent one more."""
        with self.hand.engine.begin() as connection:
            connection.exec_driver_sql(PROGRESS)


def requests(plane: ControlPlane) -> Counter[tuple[str, str]]:
    """Requests so far for what the operator works with, by resource and verb."""
    found: Counter[tuple[str, str]] = Counter()
    for line in plane.kubectl("get", "--raw", "/metrics").splitlines():
        if match := METRIC.match(line):
            found[match[1], match[2]] += int(float(match[3]))
    return found


def memory(process: OperatorProcess) -> tuple[float, float]:
    """Resident memory now and at its highest, 10^6 octets."""
    assert process.process
    text = Path(f"/proc/{process.process.pid}/status").read_text()
    now, peak = (int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) for field in ("VmRSS", "VmHWM"))  # type: ignore[index]
    return now * 1024 / 1e6, peak * 1024 / 1e6


def healthy(process: OperatorProcess) -> bool:
    """Whether it answers its probe."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{process.port}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def cpu_seconds(process: OperatorProcess) -> float:
    assert process.process
    fields = Path(f"/proc/{process.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@contextmanager
def operator_of_many(folder: Path, count: int) -> Iterator[tuple[Many, OperatorProcess]]:
    """An operator with its usual times over an API server without controllers; the campaigns are not yet applied."""
    parts = {part: folder / part for part in ("postgres", "redis", "plane", "operator")}
    for part in parts.values():
        part.mkdir()
    with (
        PostgresServer(parts["postgres"]) as postgres,
        RedisServer(parts["redis"]) as redis,
        ControlPlane(parts["plane"]) as plane,
    ):
        ledger = postgres.database()
        migrate(ledger)
        plane.kubectl("apply", "--server-side", "-f", str(custom_resources.CRDS))
        plane.kubectl("wait", "--for=condition=Established", "--timeout=120s", "-f", str(custom_resources.CRDS))
        plane.kubectl("create", "namespace", "many")
        plane.end("controller-manager")  # Jobs without pods
        hand = Hand(plane, "many", ledger, postgres.database())
        times = {"MAILFLEET_TICK_SECONDS": "2", "MAILFLEET_STATUS_SECONDS": "5"}
        with OperatorProcess(plane, parts["operator"], ledger_url=ledger, redis_url=redis.url, **times) as operator:
            wait_for("the operator lives", lambda: healthy(operator), seconds=60, interval=0.3)
            yield Many(hand, count), operator


def measure(many: Many, operator: OperatorProcess, seconds: float) -> dict[str, Any]:
    """All of it, in order."""
    plane = many.hand.plane
    many.hand.apply(custom_resources.relay("ses"))
    began = time.monotonic()
    many.apply()
    applied = time.monotonic() - began
    many.until("all have a status", lambda _c: True)
    looks = many.first_looks()
    many.plan()
    many.until("all are sending", lambda c: c["status"].get("startTime"))
    many.apply(weight=200)
    edited = many.until("all saw the edit", lambda c: c["status"].get("observedGeneration") == 2)
    before, cpu, end = requests(plane), cpu_seconds(operator), time.monotonic() + seconds
    while time.monotonic() < end:
        many.progress()
        time.sleep(1)
    cpu = cpu_seconds(operator) - cpu
    asked = requests(plane) - before
    now, peak = memory(operator)
    writes = sum(n for (_, verb), n in asked.items() if verb not in {"GET", "LIST", "WATCH"})
    return {
        "campaigns": len(many.names),
        "apply_seconds": round(applied, 1),
        "first_look_seconds_at_most": max(looks),
        "first_look_seconds_mean": round(sum(looks) / len(looks), 2),
        "edit_seen_by_all_seconds": round(edited, 1),
        "rss_mb": round(now, 1),
        "peak_rss_mb": round(peak, 1),
        "cores": round(cpu / seconds, 2),
        "requests_per_campaign_per_minute": round(writes / len(many.names) * 60 / seconds, 1),
        "requests": {f"{verb} {kind}": n for (kind, verb), n in sorted(asked.items())},
        "reads": sum(n for (kind, verb), n in asked.items() if verb in {"GET", "LIST"} and kind not in INTERNAL),
    }


INTERNAL = {"namespaces", "nodes", "events"}
"""The API server itself reads these."""


def broken(result: dict[str, Any], *, patience: float = 1) -> list[str]:
    """The promises that do not hold; times may be so many times as long on a machine that is not quiet."""
    seconds = SECONDS * patience
    checks = {
        f"each is looked at within {seconds:.0f} s": result["first_look_seconds_at_most"] <= seconds,
        f"an edit of all is seen within {seconds:.0f} s": result["edit_seen_by_all_seconds"] <= seconds,
        f"resident memory stays below {MEGABYTES:.0f} MB": result["peak_rss_mb"] < MEGABYTES,
        f"at most {REQUESTS:.0f} requests": result["requests_per_campaign_per_minute"] <= REQUESTS,
        "no GET and no LIST in the ticks": result["reads"] == 0,
    }
    return [words for words, holds in checks.items() if not holds]
