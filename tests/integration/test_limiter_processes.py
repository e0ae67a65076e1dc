"""Real processes in real time: counts are exact, speed is printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "limiter.py"
AHEAD_SECONDS = 1.0
"""The first booking begins a second after the first call, and permits reach at most as far ahead."""


@pytest.mark.parametrize(("rate", "processes"), [("50/s", 4), ("400/s", 3)])
def test_processes_of_one_fleet_share_one_rate(redis_url: str, rate: str, processes: int) -> None:
    command = [sys.executable, BENCHMARK, "--redis", redis_url, "--rate", rate, "--processes", str(processes)]
    done = subprocess.run([*command, "--seconds", "5"], capture_output=True, text=True, timeout=480, check=True)
    line, figures = done.stdout.splitlines()[-2], json.loads(done.stdout.splitlines()[-1])
    print(line)
    limit = float(rate.removesuffix("/s"))
    assert figures["granted"] == figures["used"] + figures["late"]
    assert figures["used"] > limit, "the fleet sent"
    assert figures["fullest_second"] <= figures["limit_and_burst"] + 0.05 * limit + processes
    assert figures["used"] <= limit * (figures["spread_seconds"] + AHEAD_SECONDS) + figures["limit_and_burst"] - limit
