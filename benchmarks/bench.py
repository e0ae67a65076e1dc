"""Mailfleet's sender beside what it replaces (BullMQ + nodemailer), a sender in Go, and the floor; see decision 0100.

usage: bench.py [--quick] [--recipients 20000] [--rounds 3] [--connections 20] [--delays 0 10 50] [--only NAME ...]
All send the same mails from the same private Postgres (fsync and synchronous_commit on) to the same sink, one after the
other, in rounds; medians count. Writes build/bench.json (with --quick bench-quick.json, with --only bench-some.json).
The last line is for machines; the exit status says whether count and hashes were right in every run and, unless --quick
or --only, whether the goals hold and the peers are as fast as they were when they were judged first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
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
from designs import COMPARED, LOGIN, PRICED, WORKERS, Sender  # noqa: E402
from measuring import Measured, SinkProcess, machine, observe, save, sink  # noqa: E402
from newsletter import summed, tables  # noqa: E402
from programs import go_program, node_program, versions  # noqa: E402
from results import Results, last_line, median, missed, peers, prices, rate_line, table  # noqa: E402

from fleet import Fleet, campaign  # noqa: E402
from mailfleet_sender.audience.row import Row  # noqa: E402
from mailfleet_sender.contract import environment  # noqa: E402
from mailfleet_sender.contract.campaign import Message  # noqa: E402
from mailfleet_sender.message import Composer  # noqa: E402
from services import PostgresServer, RedisServer  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from newsletter import Newsletter

DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "128MB"}
SHARE = {0: 1, 10: 5, 50: 10}
"""Behind a delay (ms) one of so many recipients is enough: those runs are slow, not noisy."""


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
        assert self.postgres.process
        assert self.redis.process
        servers = (self.postgres.process.pid, self.redis.process.pid)
        lapsed: list[int] = []
        with sink(self.sink, expect=count, options=sender.sink(delay)) as at:
            if sender.kind == "mailfleet":
                starting = self._mailfleet(sender, at, url, count, lapsed)
            else:
                starting = self._program(sender, at, url, rows)
            with starting as process:
                measured = observe(process, at, servers=servers, expected=expected)
        with closing(psycopg2.connect(self.postgres.url("postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"DROP DATABASE {url.rsplit('/', 1)[1]} WITH (FORCE)")
        return replace(measured, lapsed=sum(lapsed) / count)

    @contextmanager
    def _mailfleet(
        self, sender: Sender, at: SinkProcess, url: str, count: int, lapsed: list[int]
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A planned campaign of one range, and its one sender: the real process; how many permits it let lapse."""
        with (
            tempfile.TemporaryDirectory(dir=self.folder) as folder,
            Fleet(
                url,
                url,
                self.redis.url,
                at,  # type: ignore[arg-type] # only its port is asked
                Path(folder),
                definition=campaign(recipients={"table": {"name": "recipients"}}, message=sender.message),
                range_size=count,
                environ={
                    environment.CONFIG_FOLDER: str(Path(folder) / "maps"),
                    environment.SMTP_USERNAME: LOGIN[0],
                    environment.SMTP_PASSWORD: LOGIN[1],
                },
                relay_changes=sender.relay(self.connections),
            ) as fleet,
        ):
            sender.letter.mount(Path(folder) / "maps")
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
            lapsed += [line["lapsed_permits"] for line in fleet.sender_lines("sender ends")]

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


# --- all of it --------------------------------------------------------------------------------------
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
    where = machine()
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
    said = {
        "machine": where,
        "options": vars(options),
        "peers": versions(),
        "sweep": sweep,
        "senders": {s.name: asdict(s) for s in wanted},
        "runs": {d: {n: [asdict(m) for m in runs] for n, runs in senders.items()} for d, senders in results.items()},
    }
    save("bench-some" if options.only else "bench-quick" if options.quick else "bench", said)
    table(results)
    wrong = [n for senders in results.values() for n, runs in senders.items() if not median(runs).right]
    told = [f"wrong: what {name} sent is not what it had to send" for name in wrong]
    if not options.only:
        print("", *prices(results), rate_line(results), *peers(results), sep="\n")
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
