"""The memory of a sender does not grow with its audience: peak RSS for a small and a large range.

usage: memory.py [--recipients 5000 200000]
Prints each sender's peak resident memory; the exit status says whether they differ by less than 10 %.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("tests", "deploy/sink")]

from fleet import Fleet, subscribers  # noqa: E402
from services import PostgresServer, RedisServer  # noqa: E402
from sink import Sink  # noqa: E402


def peak_kib(postgres: PostgresServer, redis: RedisServer, recipients: int) -> int:
    """Peak RSS of one sender that sends to all of them, in KiB."""
    with tempfile.TemporaryDirectory() as folder, Sink(Path(folder)) as sink:
        redis.flush()
        url = postgres.database()
        subscribers(url, recipients)
        with Fleet(url, url, redis.url, sink, Path(folder), rate="100000/s") as fleet:
            fleet.range_size = recipients
            fleet.start()
            began = time.monotonic()
            fleet.work(1, seconds=recipients / 100 + 60)
            seconds = time.monotonic() - began
            (line,) = fleet.sender_lines("sender ends")
            assert fleet.totals.sent == recipients
    print(
        f"memory: recipients={recipients} peak_rss={line['peak_rss_kib'] / 1024:.1f} MiB "
        f"({recipients / seconds:.0f} messages/s, {line['cpu_seconds'] / recipients * 1e6:.0f} us of CPU a message)",
        flush=True,
    )
    return int(line["peak_rss_kib"])


def main() -> None:
    """Run both sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recipients", type=int, nargs=2, default=[5_000, 200_000])
    sizes = parser.parse_args().recipients
    with tempfile.TemporaryDirectory() as folder:
        for name in ("pg", "redis"):
            (Path(folder) / name).mkdir()
        with PostgresServer(Path(folder) / "pg") as postgres, RedisServer(Path(folder) / "redis") as redis:
            small, large = (peak_kib(postgres, redis, size) for size in sizes)
    change = abs(large - small) / small
    print(f"memory: difference={change:.1%} (less than 10 %: {change < 0.1})")
    sys.exit(change >= 0.1)


if __name__ == "__main__":
    main()
