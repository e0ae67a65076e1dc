"""Mailfleet's sender beside what it replaces (BullMQ + nodemailer), a sender in Go, and the floor; see decision 0100.

usage: bench.py [--quick] [--recipients 20000] [--rounds 3] [--connections 20] [--delays 0 10 50] [--only NAME ...]
All send the same mails from the same private Postgres (fsync and synchronous_commit on) to the same sink, one after the
other, in rounds; medians count. Writes build/bench.json. The last line is for machines; the exit status says whether
count and hashes were right in every run and, unless --quick or --only, whether the goals hold and the peers are as fast
as they were when they were judged first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / part) for part in ("tests", "deploy/sink", "deploy/cluster")]

import psycopg2  # noqa: E402
from measuring import Measured, SinkProcess, observe, sink  # noqa: E402
from newsletter import Newsletter, newsletter, summed, tables  # noqa: E402

from fleet import Fleet, campaign  # noqa: E402
from mailfleet_cluster.places import cache, content_hash  # noqa: E402
from mailfleet_sender.audience.row import Row  # noqa: E402
from mailfleet_sender.contract.campaign import Message  # noqa: E402
from mailfleet_sender.message import Composer  # noqa: E402
from services import PostgresServer, RedisServer  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "128MB"}
RATE = "1000000/s,max_burst=10000000"
"""Of the relay: the limiter is asked and books, and never says "wait"; a permit is kept for 10 s, not 100 ms."""
SHARE = {0: 1, 10: 5, 50: 10}
"""Behind a delay (ms) one of so many recipients is enough: those runs are slow, not noisy."""
WORKERS = {"bullmq": (1, 4, 10), "go": (20, 40)}
"""The declared sweep: jobs at once, goroutines. The fastest is measured."""
KNOWN = {"bullmq": (589, 1719), "go": (3555, 294)}
"""Messages a second and CPU us a message when these peers were first judged (2 cores, PERFORMANCE.md)."""
EVERYTHING = {
    "replyTo": "Shop <service@example.com>",
    "headers": {"X-Campaign": "{{ plan }}", "Feedback-ID": "autumn:news:example"},
}


@dataclass(frozen=True, slots=True)
class Sender:
    """One design under test.

    Attributes:
        kind: mailfleet, bullmq, go or floor.
        pipelining: Mailfleet's setting of the relay.
        tls: STARTTLS at the sink.
        mark: put into each paragraph; not ASCII makes the bodies UTF-8.
        everything: more headers, Reply-To.
        workers: of a peer.
    """

    name: str
    kind: str
    pipelining: str = "Auto"
    tls: bool = False
    mark: str = ""
    everything: bool = False
    workers: int = 0

    @property
    def letter(self) -> Newsletter:
        """What it sends."""
        return newsletter(self.mark)


COMPARED = (
    Sender("bullmq", "bullmq"),
    Sender("go", "go"),
    Sender("sequential", "mailfleet", "Sequential"),
    Sender("grouped", "mailfleet", "Grouped"),
    Sender("pipelined", "mailfleet", "Pipelined"),
    Sender("chunking", "mailfleet", "Chunking"),
    Sender("floor", "floor"),
)
PRICED = (
    Sender("pipelined+tls", "mailfleet", "Pipelined", tls=True),
    Sender("pipelined+utf8", "mailfleet", "Pipelined", mark=" für Zoë"),
    Sender("pipelined+all", "mailfleet", "Pipelined", tls=True, mark=" für Zoë", everything=True),
)


# --- what is installed, once, outside the checkout --------------------------------------------------
def go_program(folder: Path) -> Path:
    """Build a Go program; only modules that go.sum names."""
    binary = cache() / "bin" / f"bench-{folder.name}-{content_hash([folder])}"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        made = binary.with_suffix(f".{os.getpid()}")
        command = ["go", "build", "-mod=readonly", "-buildvcs=false", "-o", str(made), "."]
        subprocess.run(command, cwd=folder, env={**os.environ, "CGO_ENABLED": "0"}, check=True)
        made.rename(binary)
    return binary


def node_program(folder: Path) -> Path:
    """Install the packages of package.json beside a copy of the program."""
    home = cache() / "bench" / f"node-{content_hash([folder])}"
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        made = home.with_suffix(f".{os.getpid()}")
        shutil.copytree(folder, made)
        command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
        subprocess.run(command, cwd=made, check=True)
        made.rename(home)
    return home / "peer.js"


# --- the bench --------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Bench:
    """The machinery that all runs share."""

    postgres: PostgresServer
    redis: RedisServer
    folder: Path
    sink: Path
    programs: dict[str, list[str]]
    connections: int

    def measure(self, sender: Sender, *, count: int, delay: int) -> Measured:
        """Send to `count` recipients through a relay `delay` ms away."""
        url = self.postgres.database()
        self.redis.flush()
        with closing(psycopg2.connect(url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(tables(count))
                cursor.execute("VACUUM ANALYZE recipients")
                cursor.execute("SELECT email, first_name, plan, renews, token FROM recipients ORDER BY id")
                rows = [
                    (r[0], dict(zip(("first_name", "plan", "renews", "token"), r[1:], strict=True))) for r in cursor
                ]
                cursor.execute("CHECKPOINT")
        expected = (count, summed(sender.letter, rows, same=sender.kind == "floor"))
        options = (f"-delay={delay}ms", f"-chunking={str(sender.pipelining == 'Chunking').lower()}")
        options += ("-tls=starttls",) if sender.tls else ()
        assert self.postgres.process
        assert self.redis.process
        servers = (self.postgres.process.pid, self.redis.process.pid)
        with sink(self.sink, expect=count, options=options) as at:
            if sender.kind == "mailfleet":
                starting = self._mailfleet(sender, at, url, count)
            else:
                starting = self._program(sender, at, url, rows)
            with starting as process:
                measured = observe(process, at, servers=servers, expected=expected)
        with closing(psycopg2.connect(self.postgres.url("postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"DROP DATABASE {url.rsplit('/', 1)[1]} WITH (FORCE)")
        return measured

    @contextmanager
    def _mailfleet(self, sender: Sender, at: SinkProcess, url: str, count: int) -> Iterator[subprocess.Popen[bytes]]:
        """A planned campaign of one range, and its one sender: the real process."""
        message = {
            "from": "News <news@example.com>",
            **sender.letter.templates,
            "unsubscribe": {"url": "https://example.com/u/{{ token }}"},
            **(EVERYTHING if sender.everything else {}),
        }
        if "replyTo" in message:
            message["reply_to"] = message.pop("replyTo")
        relay = {
            "tls": {"mode": "StartTLS", "verification": "None"} if sender.tls else {"mode": "None"},
            "pipelining": sender.pipelining,
            "connections": {"per_sender": self.connections, "messages_per_connection": 1_000_000_000},
        }
        with (
            tempfile.TemporaryDirectory(dir=self.folder) as folder,
            Fleet(
                url,
                url,
                self.redis.url,
                at,  # type: ignore[arg-type] # only its port is asked
                Path(folder),
                rate=RATE,
                definition=campaign(recipients={"table": {"name": "recipients"}}, message=message),
                range_size=count,
                relay_changes=relay,
            ) as fleet,
        ):
            fleet.start()
            ((wave, index),) = fleet.open_ranges()
            started = fleet.spawn(wave, index)
            try:
                yield started.process
            except Exception:
                print(started.log.read_text()[-3000:], file=sys.stderr)
                raise
            if fleet.totals.sent != count:
                raise RuntimeError(f"the ledger's books say {fleet.totals}")

    @contextmanager
    def _program(
        self, sender: Sender, at: SinkProcess, url: str, rows: list[tuple[str, dict[str, str]]]
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A peer, or the floor."""
        template = self.folder / "template.json"
        template.write_text(json.dumps(sender.letter.templates), encoding="utf-8")
        command = list(self.programs[sender.kind])
        if sender.kind == "floor":
            fixed = self.folder / "fixed.eml"
            fixed.write_bytes(_fixed(sender.letter, rows[0]))
            command += [str(at.port), str(self.connections), str(len(rows)), str(fixed)]
        environ = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": url,
            "REDIS_URL": self.redis.url,
            "SMTP_PORT": str(at.port),
            "TEMPLATE": str(template),
            "CONNECTIONS": str(self.connections),
            "WORKERS": str(sender.workers or WORKERS.get(sender.kind, (0,))[0]),
        }
        process = subprocess.Popen(command, env=environ)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if sender.kind != "floor":
            with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM peer_ledger")
                if (found := cursor.fetchone()) != (len(rows),):
                    raise RuntimeError(f"{sender.name}'s ledger holds {found} rows of {len(rows)}")


def _fixed(letter: Newsletter, row: tuple[str, dict[str, str]]) -> bytes:
    """One whole mail, as Mailfleet makes it; none of its lines begins with a dot."""
    message = Message.model_validate({"from": "News <news@example.com>", **letter.templates})
    values: dict[str, Any] = dict(row[1])
    return Composer(message, run_key="floor").compose(Row("1", row[0], values), key="1", eight_bit=True).body


# --- what came out -----------------------------------------------------------------------------------
def median(runs: list[Measured]) -> Measured:
    """Of each figure by itself; right if all were."""
    columns = {name: statistics.median(asdict(run)[name] for run in runs) for name in asdict(runs[0])}
    return Measured(**{**columns, "right": all(run.right for run in runs)})


Results = dict[int, dict[str, list[Measured]]]


def table(results: Results) -> None:
    """All medians, with each design's speed beside BullMQ's."""
    for delay, senders in results.items():
        print(f"\ndelay {delay} ms")
        print("sender            msg/s  x bullmq  cpu us  rss MB  postgres us  redis us  sink us  counted")
        base = median(senders["bullmq"]).per_second if "bullmq" in senders else None
        for name, runs in senders.items():
            m = median(runs)
            times = f"{m.per_second / base:8.2f}x" if base else "        -"
            print(
                f"{name:15} {m.per_second:7.0f} {times} {m.cpu_us:7.0f} {m.rss_mb:7.0f} {m.postgres_us:12.1f}"
                f" {m.redis_us:9.1f} {m.sink_us:8.1f}  {'right' if m.right else 'WRONG'}"
            )


def prices(results: Results) -> None:
    """What TLS, UTF-8 and all together cost."""
    plain = median(results[0]["pipelined"])
    for sender in PRICED:
        if sender.name in results[0]:
            m = median(results[0][sender.name])
            print(
                f"price: {sender.name} {m.per_second / plain.per_second - 1:+.0%} messages/s,"
                f" {m.cpu_us - plain.cpu_us:+.0f} us of CPU a message"
            )


def missed(results: Results) -> list[str]:
    """The goals (issue 5) that do not hold, and peers too slow to compare with."""
    rate = {(d, n): median(runs).per_second for d, senders in results.items() for n, runs in senders.items()}
    plain = median(results[0]["pipelined"])
    goals = [
        ("pipelined >= 15 x BullMQ", rate[0, "pipelined"] / rate[0, "bullmq"], 15.0),
        ("pipelined >= 2.5 x Go", rate[0, "pipelined"] / rate[0, "go"], 2.5),
        ("sequential >= 8 x BullMQ", rate[0, "sequential"] / rate[0, "bullmq"], 8.0),
        ("pipelined >= 55 % of the floor", rate[0, "pipelined"] / rate[0, "floor"], 0.55),
        ("cpu <= 100 us", -plain.cpu_us, -100.0),
        ("rss < 96 MB", -plain.rss_mb, -96.0),
    ]
    if 10 in results:
        goals += [
            ("at 10 ms pipelined >= 3 x Go", rate[10, "pipelined"] / rate[10, "go"], 3.0),
            ("at 10 ms sequential >= 1.2 x Go", rate[10, "sequential"] / rate[10, "go"], 1.2),
        ]
    told = [f"missed: {name} ({abs(value):.2f})" for name, value, bound in goals if value < bound]
    for name, (per_second, cpu_us) in KNOWN.items():
        m = median(results[0][name])
        if m.per_second < 0.8 * per_second:
            told.append(
                f"void: {name} sends {m.per_second:.0f}/s at {m.cpu_us:.0f} us a message, more than 20 % below the"
                f" {per_second}/s at {cpu_us} us that it is known for"
            )
    return told


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


def tuned(bench: Bench, senders: list[Sender], *, count: int) -> tuple[list[Sender], dict[str, dict[int, float]]]:
    """The declared sweep of the peers: each with the number of workers that made it fastest."""
    chosen, seen = [], {}
    for sender in senders:
        if sender.kind in WORKERS:
            rates = {}
            for workers in WORKERS[sender.kind]:
                rates[workers] = bench.measure(replace(sender, workers=workers), count=count, delay=0).per_second
                print(f"sweep: {sender.name} workers={workers} {rates[workers]:.0f} msg/s", flush=True)
            seen[sender.name] = rates
            sender = replace(sender, workers=max(rates, key=lambda w: rates[w]))  # noqa: PLW2901
        chosen.append(sender)
    return chosen, seen


def run(bench: Bench, options: argparse.Namespace) -> bool:
    """The sweep, all rounds, all that is printed; whether it is good."""
    wanted = [s for s in (*COMPARED, *PRICED) if not options.only or s.name in options.only]
    sweep: dict[str, dict[int, float]] = {}
    if not options.only:
        wanted, sweep = tuned(bench, wanted, count=options.recipients // 4)
    results: Results = {delay: {} for delay in options.delays}
    for number in range(options.rounds):
        for delay in options.delays:
            for sender in wanted:
                if delay and sender in PRICED:
                    continue
                m = bench.measure(sender, count=options.recipients // SHARE.get(delay, 10), delay=delay)
                results[delay].setdefault(sender.name, []).append(m)
                print(f"round {number + 1} delay={delay}ms {sender.name} {m.per_second:.0f} msg/s", flush=True)
    build = HERE.parent / "build"
    build.mkdir(exist_ok=True)
    said = {
        "options": vars(options),
        "processors": os.cpu_count(),
        "sweep": sweep,
        "senders": {s.name: asdict(s) for s in wanted},
        "runs": {d: {n: [asdict(m) for m in runs] for n, runs in senders.items()} for d, senders in results.items()},
    }
    (build / "bench.json").write_text(json.dumps(said, indent=1), encoding="utf-8")
    table(results)
    wrong = [n for senders in results.values() for n, runs in senders.items() if not median(runs).right]
    told = [f"wrong: what {name} sent is not what it had to send" for name in wrong]
    if not options.only:
        print()
        prices(results)
        told += missed(results) if not options.quick else []
    for line in told:
        print(line)
    if not options.only:
        print(last_line(results))
    return not told


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--quick", action="store_true", help="2,000 recipients, one round, not at 50 ms; goals are not judged"
    )
    parser.add_argument("--recipients", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument(
        "--delays", type=int, nargs="+", help="milliseconds; 0 must be among them (0 10 50; quick: 0 10)"
    )
    parser.add_argument("--only", nargs="+", default=[], help="senders by name: no sweep, no ratios, no goals")
    options = parser.parse_args()
    options.delays = options.delays or ([0, 10] if options.quick else [0, 10, 50])
    if 0 not in options.delays and not options.only:
        parser.error("--delays must hold 0, where the ratios come from; leave it out only with --only")
    options.recipients = options.recipients or (2_000 if options.quick else 20_000)
    options.rounds = options.rounds or (1 if options.quick else 3)
    programs = {
        "bullmq": ["node", str(node_program(HERE / "peers" / "node"))],
        "go": [str(go_program(HERE / "peers" / "go"))],
        "floor": [sys.executable, str(HERE / "floor.py")],
    }
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("pg", "redis"):
            (folder / name).mkdir()
        bench = Bench(
            postgres=stack.enter_context(PostgresServer(folder / "pg", **DURABLE)),
            redis=stack.enter_context(RedisServer(folder / "redis")),
            folder=folder,
            sink=go_program(HERE / "sink"),
            programs=programs,
            connections=options.connections,
        )
        good = run(bench, options)
    sys.exit(not good)


if __name__ == "__main__":
    main()
