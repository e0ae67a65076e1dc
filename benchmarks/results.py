"""What the runs of `bench.py` say: medians, ratios, prices, peers, goals. Pure, but for what is printed."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from designs import KNOWN, PRICED
from measuring import Measured

Results = dict[int, dict[str, list[Measured]]]
"""By the relay's delay in milliseconds, then by sender."""


def median(runs: list[Measured]) -> Measured:
    """Of each figure by itself; right if all were."""
    columns = {name: statistics.median(asdict(run)[name] for run in runs) for name in asdict(runs[0])}
    return Measured(**{**columns, "right": all(run.right for run in runs)})


def read(document: dict[str, Any]) -> Results:
    """What `bench.py` left in JSON."""
    runs = document["runs"]
    return {int(d): {n: [Measured(**m) for m in measured] for n, measured in runs[d].items()} for d in runs}


def table(results: Results) -> None:
    """All medians, with each design's speed beside BullMQ's."""
    for delay, senders in results.items():
        print(f"\ndelay {delay} ms")
        print("sender            msg/s  x bullmq  cpu us  rss MB  postgres us  redis us  sink us  lapsed  counted")
        base = median(senders["bullmq"]).per_second if "bullmq" in senders else None
        for name, runs in senders.items():
            m = median(runs)
            times = f"{m.per_second / base:8.2f}x" if base else "        -"
            print(
                f"{name:15} {m.per_second:7.0f} {times} {m.cpu_us:7.0f} {m.rss_mb:7.0f} {m.postgres_us:12.1f}"
                f" {m.redis_us:9.1f} {m.sink_us:8.1f} {m.lapsed:7.2f}  {'right' if m.right else 'WRONG'}"
            )


@dataclass(frozen=True, slots=True)
class Price:
    """A feature beside the plain sender: messages a second as a share, CPU us a message more, permits that lapsed."""

    name: str
    share: float
    cpu_us: float
    lapsed: float

    def __str__(self) -> str:
        return (
            f"price: {self.name} {self.share - 1:+.0%} messages/s, {self.cpu_us:+.0f} us of CPU a message,"
            f" {self.lapsed:.2f} permits lapsed a message"
        )


def prices(results: Results) -> list[Price]:
    """What each feature costs, and all of them together."""
    plain = median(results[0]["pipelined"])
    found = [(sender.name, median(results[0][sender.name])) for sender in PRICED if sender.name in results[0]]
    return [Price(name, m.per_second / plain.per_second, m.cpu_us - plain.cpu_us, m.lapsed) for name, m in found]


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer now, and when it was judged first (`designs.KNOWN`)."""

    name: str
    per_second: float
    cpu_us: float
    known: tuple[int, int]

    @property
    def share(self) -> float:
        """Messages a second now, as a share of those known."""
        return self.per_second / self.known[0]

    @property
    def void(self) -> bool:
        """It is more than 20 % slower than known: it was hindered, and makes us look good."""
        return self.share < 0.8

    def __str__(self) -> str:
        known = f"{self.known[0]}/s at {self.known[1]} us of CPU a message that it is known for"
        return f"peer: {self.name} {self.per_second:.0f}/s at {self.cpu_us:.0f} us, {self.share:.0%} of the {known}"


def peers(results: Results) -> list[Peer]:
    """All peers that were measured."""
    found = [(name, median(results[0][name])) for name in KNOWN if name in results[0]]
    return [Peer(name, m.per_second, m.cpu_us, KNOWN[name]) for name, m in found]


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of issue 5's acceptance: a value, and what it must reach, or with `most` must not pass."""

    says: str
    value: float
    bound: float
    most: bool = False

    @property
    def holds(self) -> bool:
        """Whether it is reached."""
        return self.value < self.bound if self.most else self.value >= self.bound

    @property
    def wanted(self) -> str:
        """The bound, for people."""
        return f"{'below' if self.most else 'at least'} {self.bound:g}"


def goals(results: Results) -> list[Goal]:
    """All that the measured delays allow to judge."""
    rate = {(d, n): median(runs).per_second for d, senders in results.items() for n, runs in senders.items()}
    plain = median(results[0]["pipelined"])
    found = [
        Goal("pipelined, times BullMQ", rate[0, "pipelined"] / rate[0, "bullmq"], 15),
        Goal("pipelined, times Go", rate[0, "pipelined"] / rate[0, "go"], 2.5),
        Goal("sequential, times BullMQ", rate[0, "sequential"] / rate[0, "bullmq"], 8),
        Goal("pipelined, of the floor", rate[0, "pipelined"] / rate[0, "floor"], 0.55),
        Goal("CPU us a message", plain.cpu_us, 100, most=True),
        Goal("peak RSS, MB", plain.rss_mb, 96, most=True),
    ]
    if 10 in results:
        found += [
            Goal("at 10 ms: pipelined, times Go", rate[10, "pipelined"] / rate[10, "go"], 3),
            Goal("at 10 ms: sequential, times Go", rate[10, "sequential"] / rate[10, "go"], 1.2),
        ]
    return found


def missed(results: Results) -> list[str]:
    """The goals that do not hold, and peers too slow to compare with."""
    told = [f"missed: {g.says} {g.value:.2f}, wanted {g.wanted}" for g in goals(results) if not g.holds]
    told += [f"void: {p.name} is more than 20 % slower than known ({p.share:.0%})" for p in peers(results) if p.void]
    return told


def rate_line(results: Results) -> str:
    """The ratios of the sender whose relay has a plain rate, as people write it."""
    m = {name: median(runs) for name, runs in results[0].items()}
    plain = m["pipelined+rate"]
    return (
        f"rate: pipelined+rate={plain.per_second / m['bullmq'].per_second:.1f}x"
        f" go={plain.per_second / m['go'].per_second:.1f}x"
        f" floor={plain.per_second / m['floor'].per_second:.0%} cpu_us={plain.cpu_us:.0f} rss_mb={plain.rss_mb:.0f}"
    )


def last_line(results: Results) -> str:
    """For machines."""
    m = {name: median(runs) for name, runs in results[0].items()}
    rate = m["pipelined"].per_second
    return (
        f"bench: pipelined={rate / m['bullmq'].per_second:.1f}x"
        f" sequential={m['sequential'].per_second / m['bullmq'].per_second:.1f}x"
        f" go={rate / m['go'].per_second:.1f}x floor={rate / m['floor'].per_second:.0%}"
        f" cpu_us={m['pipelined'].cpu_us:.0f} rss_mb={m['pipelined'].rss_mb:.0f}"
    )
