"""The limiter under real pods: real processes, real time, a real Redis.

usage: limiter.py [--redis URL] [--rate 1000/s] [--processes 4] [--seconds 10]
Each process is a pod of one campaign that uses each permit at its slot. Prints what the fleet did and, last, one
line of JSON. Without --redis a private one is started.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from mailfleet_sender.contract.rate import Rate
from mailfleet_sender.errors import LimiterUnavailable
from mailfleet_sender.limiter import (
    ANY,
    AccountLimits,
    Appetite,
    Limiter,
    LimiterAdmin,
    Permits,
    Refusal,
    open_limiter,
    open_limiter_admin,
    seed_limits,
)
from services import RedisServer
from virtual_fleet import fullest_second

ACCOUNT, CAMPAIGN, DOMAIN = "benchmark/relay", "benchmark/campaign", "slow.example"


class Pod:
    """Asks as the client rules say, and uses each permit at once."""

    def __init__(self, limiter: Limiter, ready: dict[str, int] | None = None) -> None:
        self._limiter, self._appetite, self._ready = limiter, Appetite(), ready
        self.used: list[float] = []
        self.used_for: dict[str, list[float]] = {}
        self.granted = self.late = self.calls = 0

    async def run(self, until: float) -> None:
        """Until `until`, time.monotonic() seconds: then no more permits are asked for."""
        async with asyncio.TaskGroup() as batches:
            while time.monotonic() < until:
                self.calls += 1
                try:
                    answer = await self._limiter.reserve(self._appetite.want, self._ready)
                except LimiterUnavailable:
                    await asyncio.sleep(0.25)
                    continue
                if isinstance(answer, Refusal):
                    await asyncio.sleep(answer.after_seconds)
                    continue
                self.granted += answer.count
                batches.create_task(self._use(answer))
                await _until(answer.slot(0)[0])

    async def _use(self, permits: Permits) -> None:
        for slot in permits.slots():
            await _until(slot.start)
            if (now := time.monotonic()) <= slot.end:
                self.used.append(now)
                self.used_for.setdefault(slot.domain, []).append(now)
            else:
                self.late += 1


async def _until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


async def pod(options: argparse.Namespace) -> None:
    """One process: begins when all are there, which standard input says, and prints what it did."""
    url, rate, seconds = options.redis, options.rate, options.seconds
    domains = {DOMAIN: Rate.parse(options.domain)} if options.domain else None
    ready = {ANY: 500, DOMAIN: 20} if options.domain else None
    async with open_limiter(url) as client:

        async def seed() -> None:
            await seed_limits(client, ACCOUNT, 1, AccountLimits(rate, domains or {}))

        limiter = Limiter(client, account=ACCOUNT, campaign=options.campaign, pod=f"pod-{os.getpid()}", seed=seed)
        worker = Pod(limiter, ready)
        print("ready", flush=True)
        sys.stdin.readline()
        await worker.run(time.monotonic() + seconds)
    print(json.dumps({name: getattr(worker, name) for name in ("used", "used_for", "granted", "late", "calls")}))


def measure(url: str, rate: Rate, processes: int, seconds: float) -> dict[str, Any]:
    """Run the fleet. CLOCK_MONOTONIC is one clock for all processes of a machine."""
    with open_limiter_admin(url) as client:
        LimiterAdmin(client).forget_account(ACCOUNT)
        client.config_resetstat()
    command = [sys.executable, __file__, "--redis", url, "--rate", str(rate), "--seconds", str(seconds), "--pod"]
    pods = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    for process in pods:
        assert process.stdout
        process.stdout.readline()
    for process in pods:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [json.loads(process.communicate()[0]) for process in pods]
    with redis.Redis.from_url(url) as client:
        script = client.info("commandstats").get("cmdstat_evalsha", {})
    used = sorted(itertools.chain.from_iterable(one["used"] for one in said))
    steady = [t for t in used if t >= used[0] + 1]
    calls = sum(one["calls"] for one in said)
    return {
        "rate": str(rate),
        "processes": processes,
        "granted": sum(one["granted"] for one in said),
        "used": len(used),
        "late": sum(one["late"] for one in said),
        "mean": round((len(steady) - 1) / (steady[-1] - steady[0]), 2),
        "spread_seconds": round(used[-1] - used[0], 3),
        "fullest_second": fullest_second(used),
        "limit_and_burst": round(rate.per_second + rate.burst, 2),
        "calls_for_50": round(50 * calls / len(used), 2),
        "redis_us_a_call": script.get("usec_per_call"),
    }


def main() -> None:
    """Measure, or be one of the pods."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--redis")
    parser.add_argument("--rate", type=Rate.parse, default=Rate.parse("1000/s"))
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--pod", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--campaign", default=CAMPAIGN, help=argparse.SUPPRESS)
    parser.add_argument("--domain", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pod:
        asyncio.run(pod(options))
    elif options.redis:
        report(measure(options.redis, options.rate, options.processes, options.seconds))
    else:
        with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as server:
            report(measure(server.url, options.rate, options.processes, options.seconds))


def report(figures: dict[str, Any]) -> None:
    """For people, and for a program."""
    print(
        "limiter: rate={rate} processes={processes} permits={used} late={late} mean={mean}/s "
        "fullest_second={fullest_second} (limit+burst {limit_and_burst:g}) calls_for_50={calls_for_50} "
        "redis={redis_us_a_call} us a call".format(**figures)
    )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
