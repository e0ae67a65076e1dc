"""A relay's rate, held by a whole fleet: what the oracle sees with 1, 3 and 8 senders.

usage: rates.py [--seconds 60] [--rates 1000 50] [--senders 1 3 8]
Prints for each the mean from first to last message and the fullest sliding second; the exit status says whether
each second held limit + burst + 5 % and each mean 95 % of the limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("tests", "deploy/sink")]

from fleet import Fleet, subscribers  # noqa: E402
from mailfleet_sender.contract.rate import Rate  # noqa: E402
from services import PostgresServer, RedisServer  # noqa: E402
from sink import Sink  # noqa: E402


def measured(postgres: PostgresServer, redis: RedisServer, *, rate: int, senders: int, seconds: float) -> bool:
    """One campaign of `seconds` of work, and whether the rate held."""
    recipients = int(rate * seconds)
    with tempfile.TemporaryDirectory() as folder, Sink(Path(folder)) as sink:
        redis.flush()
        url = postgres.database()
        subscribers(url, recipients)
        with Fleet(url, url, redis.url, sink, Path(folder), rate=f"{rate}/s") as fleet:
            # Ranges for all, each to the end: a pod's last seconds are not shared by the others.
            fleet.range_size = max(500, recipients // senders)
            fleet.start()
            fleet.work(senders, seconds=seconds * 3 + 60)
            oracle, summary = fleet.held_against_the_oracle(), sink.summary()
            lapsed = sum(line["lapsed_permits"] for line in fleet.sender_lines("sender ends"))
    limit = Rate.parse(f"{rate}/s")
    mean = (summary.accepted - 1) / ((summary.last or 0) - (summary.first or 0))
    most = 1.05 * rate + limit.burst
    good = summary.peak <= most and mean >= 0.95 * rate and not oracle["lost"] and not oracle["duplicates"]
    print(
        f"rates: limit={rate}/s senders={senders} accepted={summary.accepted} mean={mean:.1f}/s ({mean / rate:.1%}) "
        f"peak={summary.peak}/s (at most {most:.0f}) lapsed_permits={lapsed} lost={oracle['lost']} "
        f"duplicates={oracle['duplicates']} {'holds' if good else 'BROKEN'}",
        flush=True,
    )
    return good


def main() -> None:
    """Run all combinations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rates", type=int, nargs="+", default=[1000, 50])
    parser.add_argument("--senders", type=int, nargs="+", default=[1, 3, 8])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("pg", "redis"):
            (Path(folder) / name).mkdir()
        with PostgresServer(Path(folder) / "pg") as postgres, RedisServer(Path(folder) / "redis") as redis:
            good = [
                measured(postgres, redis, rate=rate, senders=senders, seconds=options.seconds)
                for rate in options.rates
                for senders in options.senders
            ]
    print(f"rates: runs={len(good)} broken={good.count(False)}")
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
