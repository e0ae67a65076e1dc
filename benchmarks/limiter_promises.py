"""What the limiter promises, one line each, with real processes and a real Redis; the quota in virtual time.

usage: limiter_promises.py [words of a promise ...]
Prints a line for each promise with what was seen, and ends with 1 if one does not hold. About two minutes; a machine
that is busy with something else makes permits late, which shows as "late" and may fail the lines that count them.
Writes build/bench-limiter.json if all were tried.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import limiter
from measuring import machine, save

from mailfleet_sender.contract.rate import Rate
from mailfleet_sender.contract.relay import Quota
from mailfleet_sender.limiter import ANY, AccountLimits, LimiterAdmin, open_limiter_admin
from services import RedisServer
from virtual_fleet import VirtualFleet, fullest_second, in_force_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DAY = 24 * 3600.0


@dataclass
class Fleet:
    """Processes that have begun to ask."""

    processes: list[subprocess.Popen[str]]
    began: float

    def said(self) -> list[dict[str, Any]]:
        """What each did, when all have ended."""
        return [json.loads(process.communicate()[0]) for process in self.processes]


@contextmanager
def private_redis(rate: str, **limits: Any) -> Iterator[tuple[RedisServer, LimiterAdmin]]:
    """An empty Redis with the account's limits."""
    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer(Path(folder)) as server,
        open_limiter_admin(server.url) as client,
    ):
        admin = LimiterAdmin(client)
        admin.write_limits(limiter.ACCOUNT, 1, AccountLimits(Rate.parse(rate), **limits))
        yield server, admin


def started(server: RedisServer, rate: str, pods: list[tuple[str, float]], *options: str) -> Fleet:
    """Start pods, each of a campaign for so many seconds, and let them go together."""
    processes = []
    for campaign, seconds in pods:
        command = [sys.executable, limiter.__file__, "--redis", server.url, "--rate", rate, "--pod", *options]
        command += ["--campaign", campaign, "--seconds", str(seconds)]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for process in processes:
        assert process.stdout
        process.stdout.readline()
    began = time.monotonic()
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return Fleet(processes, began)


def merged(said: list[dict[str, Any]]) -> list[float]:
    return sorted(itertools.chain.from_iterable(one["used"] for one in said))


def share_of(times: list[float], since: float, until: float) -> int:
    return sum(since <= t < until for t in times)


# --- the promises: (what was seen, whether it holds) --------------------------------------------------
def one_rate() -> Iterator[tuple[str, bool]]:
    """4 processes at 1,000/s, the 10 s from the first permit on."""
    with private_redis("1000/s") as (server, _):
        said = started(server, "1000/s", [("a", 12.0)] * 4).said()
    used, calls = merged(said), sum(one["calls"] for one in said)
    burst, late = Rate.parse("1000/s").burst, sum(one["late"] for one in said)
    ten = share_of(used, used[0], used[0] + 10)
    yield (
        f"permits in the first 10 s: {ten} (9900 to {10_000 + burst:.0f}), late {late}",
        9_900 <= ten <= 10_000 + burst,
    )
    most = fullest_second(used)
    yield f"fullest second: {most} (at most {1000 + burst + 50:.0f})", most <= 1000 + burst + 50
    for_50 = 50 * calls / len(used)
    yield f"Redis calls for 50 messages: {for_50:.2f} (below 1)", for_50 < 1


def weights() -> Iterator[tuple[str, bool]]:
    """Weights 3:1, and what happens when one campaign stops."""
    with private_redis("1000/s") as (server, admin):
        for campaign, weight in (("a", 300), ("b", 100)):
            admin.set_campaign(limiter.ACCOUNT, campaign, weight=weight)
        fleet = started(server, "1000/s", [("a", 14.0), ("b", 19.0), ("b", 19.0), ("b", 19.0)])
        said = fleet.said()
    a, b = merged(said[:1]), merged(said[1:])
    counts = [share_of(times, fleet.began + 2, fleet.began + 14) for times in (a, b)]
    of_a, of_b = (count / sum(counts) for count in counts)
    yield (
        f"weights 3:1 with 1 and 3 pods: shares {of_a:.3f} and {of_b:.3f} (each within 5 % of 0.75 and 0.25)",
        abs(of_a / 0.75 - 1) <= 0.05 and abs(of_b / 0.25 - 1) <= 0.05,
    )
    after = in_force_after(b, a[-1], 950)
    yield f"one stops: the other has the whole rate after {after:.2f} s (at most 2)", after <= 2


def changes() -> Iterator[tuple[str, bool]]:
    """A changed rate, both ways, also from 1/m up."""
    for old, new in (("100/s", "1000/s"), ("1000/s", "100/s"), ("1/m", "100/s"), ("100/s", "1/m")):
        with private_redis(old) as (server, admin):
            fleet = started(server, old, [("a", 9.0)] * 4)
            time.sleep(max(0.0, fleet.began + 4 - time.monotonic()))
            changed = time.monotonic()
            admin.write_limits(limiter.ACCOUNT, 2, AccountLimits(Rate.parse(new)))
            used = merged(fleet.said())
        rate = Rate.parse(new)
        if rate.per_second > Rate.parse(old).per_second:
            after = in_force_after(used, changed, int(0.93 * rate.per_second))
        else:
            steps = (0.05 * k for k in range(120))
            most = max(1.0, rate.per_second + rate.burst)
            after = next((t for t in steps if share_of(used, changed + t, changed + t + 1) <= most), float("inf"))
        yield f"{old} to {new}: in force after {after:.2f} s (at most 2)", after <= 2


def quota() -> Iterator[tuple[str, bool]]:
    """Rolling24h over 72 simulated hours, Redis emptied twice."""
    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer(Path(folder)) as server,
        VirtualFleet(server.url, "20/s") as fleet,
    ):
        fleet.set(quota=Quota(messages=5_000))
        for rows in (None, 0.05, 0.02):
            fleet.pod(rows_per_second=rows, sleeps_on_quota=600)
        for until in (0.003 * DAY, 1.3 * DAY):
            fleet.run(until)
            fleet.redis.flushall()
        fleet.run(3 * DAY)
        most = fullest_second(fleet.used(), DAY)
    yield f"Rolling24h: fullest 24 h of 72: {most} (at most 5000)", 4_900 <= most <= 5_000


def slow_domain() -> Iterator[tuple[str, bool]]:
    """One slow domain beside others."""
    rates = {limiter.DOMAIN: Rate.parse("5/s")}
    with private_redis("1000/s", domains=rates) as (server, _):
        fleet = started(server, "1000/s", [("a", 12.0)] * 4, "--domain", "5/s")
        said = fleet.said()
    slow, others = (
        sorted(itertools.chain.from_iterable(one["used_for"].get(domain, []) for one in said))
        for domain in (limiter.DOMAIN, ANY)
    )
    mean = share_of(others, fleet.began + 2, fleet.began + 12) / 10
    yield f"beside a domain of 5/s the others have {mean:.0f}/s of 995 (at least 95 %)", mean >= 0.95 * 995
    most = fullest_second(slow)
    yield f"the domain: {len(slow)} in 11 s, fullest second {most} (at most 7)", most <= 7 and len(slow) >= 45


def killed() -> Iterator[tuple[str, bool]]:
    """Redis killed, and back after four seconds."""
    with private_redis("1000/s") as (server, _):
        fleet = started(server, "1000/s", [("a", 16.0)] * 4)
        time.sleep(max(0.0, fleet.began + 5 - time.monotonic()))
        server.kill()
        gone = time.monotonic()
        time.sleep(4)
        server.start()
        back = time.monotonic()
        used = merged(fleet.said())
    beyond = [t - gone for t in used if gone < t < back]
    last = max(beyond, default=0.0)
    yield (
        f"Redis killed: {len(beyond)} permits used after it, the last after {last:.2f} s (at most 1.1)",
        (last <= 1.1 and len(beyond) <= 1000 + 100),
    )
    again = next((t - back for t in used if t > back), float("inf"))
    most = fullest_second(used)
    yield (
        f"Redis back: sending again after {again:.2f} s, fullest second {most} (at most 1150)",
        (again <= 3 and most <= 1150),
    )


PROMISES: tuple[Callable[[], Iterator[tuple[str, bool]]], ...] = (
    one_rate, weights, changes, quota, slow_domain, killed,
)  # fmt: skip


def main() -> int:
    """Print all; 0 if all hold."""
    wanted, where, told = sys.argv[1:], machine(), []
    for promise in PROMISES:
        if wanted and promise.__name__ not in wanted:
            continue
        print(f"# {promise.__doc__}")
        for seen, holds in promise():
            told.append({"of": promise.__doc__, "seen": seen, "holds": holds})
            print(f"{'holds ' if holds else 'BROKEN'}  {seen}", flush=True)
    if not wanted:
        save("bench-limiter", {"machine": where, "promises": told})
    broken = sum(not one["holds"] for one in told)
    print(f"limiter: broken={broken}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
