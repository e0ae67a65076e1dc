"""The memory of a sender does not grow with its audience: peak RSS for a small and a large range.

usage: memory.py [--recipients 10000 1000000]
The sink is that of `bench.py`, for a million mails are to take minutes. Prints each sender's peak
resident memory; the exit status says whether they differ by less than 10 %. Writes build/bench-memory.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from measuring import machine, save, sink
from programs import HERE, go_program

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("tests", "deploy/sink")]

from fleet import Fleet, subscribers  # noqa: E402
from services import PostgresServer, RedisServer  # noqa: E402


@dataclass(frozen=True, slots=True)
class Peak:
    """One sender that sent to all: its highest resident memory, in 10^6 octets, and its speed."""

    recipients: int
    rss_mb: float
    per_second: float
    cpu_us: float


def measure(postgres: PostgresServer, redis: RedisServer, recipients: int) -> Peak:
    """One sender, one range."""
    binary = go_program(HERE / "sink")
    with tempfile.TemporaryDirectory() as folder, sink(binary, expect=recipients, options=()) as at:
        redis.flush()
        url = postgres.database()
        subscribers(url, recipients)
        with Fleet(
            url,
            url,
            redis.url,
            at,  # type: ignore[arg-type] # only its port is asked
            Path(folder),
            rate="100000/s",
            range_size=recipients,
        ) as fleet:
            fleet.start()
            began = time.monotonic()
            fleet.work(1, seconds=recipients / 100 + 60)
            seconds = time.monotonic() - began
            (line,) = fleet.sender_lines("sender ends")
            assert fleet.totals.sent == at.end()["accepted"] == recipients
    peak = Peak(
        recipients,
        line["peak_rss_kib"] * 1024 / 1e6,
        recipients / seconds,
        line["cpu_seconds"] / recipients * 1e6,
    )
    print(
        f"memory: recipients={recipients} peak_rss={peak.rss_mb:.1f} MB "
        f"({peak.per_second:.0f} messages/s, {peak.cpu_us:.0f} us of CPU a message)",
        flush=True,
    )
    return peak


def main() -> None:
    """Run both sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recipients", type=int, nargs=2, default=[10_000, 1_000_000])
    sizes = parser.parse_args().recipients
    where = machine()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("pg", "redis"):
            (Path(folder) / name).mkdir()
        with PostgresServer(Path(folder) / "pg") as postgres, RedisServer(Path(folder) / "redis") as redis:
            small, large = (measure(postgres, redis, size) for size in sizes)
    change = abs(large.rss_mb - small.rss_mb) / small.rss_mb
    save("bench-memory", {"machine": where, "peaks": [asdict(small), asdict(large)]})
    print(f"memory: difference={change:.1%} (less than 10 %: {change < 0.1})")
    sys.exit(change >= 0.1)


if __name__ == "__main__":
    main()
