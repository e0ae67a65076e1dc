"""What a durable ledger costs a message: the sender's own claim and record, beside plainer ways to keep one.

usage: ledger.py [--rows 25000] [--rounds 5]
A private Postgres with fsync and synchronous_commit on. All ways write the same rows into the same table `delivery`,
with its indices and partitions, from one process over one connection. `owned` is the real `OwnedRange`: a committed
claim of a batch, then its outcomes in a second transaction, each a compare and set. The others claim nothing and fence
nobody. Each run has a database of its own, rounds alternate, medians count. Writes build/bench-ledger.json.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

import psycopg2  # noqa: E402
from measuring import cpu_seconds, machine, save  # noqa: E402
from sqlalchemy import insert  # noqa: E402

from ledgers import Desk  # noqa: E402
from mailfleet_sender.contract.accounts import OutcomeKind  # noqa: E402
from mailfleet_sender.ledger import Outcome, Positions  # noqa: E402
from mailfleet_sender.ledger.change import copy_outcomes  # noqa: E402
from mailfleet_sender.ledger.tables import delivery  # noqa: E402
from services import PostgresServer  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "128MB"}
BATCHES = (50, 100, 250, 500, 1000)
PEER_BATCH = 500
SLOW_SHARE = 10
"""One commit a row is slow: a tenth of the rows is enough."""
COLUMNS = ("run", "range", "pos", "key", "attempt", "outcome", "code", "enhanced", "reply", "relay_queue_id",
           "address_hash")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Written:
    """One run of one way. CPU in microseconds a row: this process, and Postgres with all its processes."""

    per_second: float
    client_us: float
    postgres_us: float


@dataclass(frozen=True, slots=True)
class Way:
    """One way to record. `write` is given a ledger, its run's only range, and the outcomes to write."""

    name: str
    batch: int
    write: Callable[[Desk, Sequence[Outcome], int], None]
    share: int = 1


def outcome(position: int) -> Outcome:
    """As a sender has it when the relay took the mail."""
    return Outcome(
        position,
        f"k{position}",
        OutcomeKind.SENT,
        code="250",
        enhanced="2.0.0",
        reply="Ok: queued as 4fZk5X0000z1Qw",
        relay_queue_id="4fZk5X0000z1Qw",
        address_hash=sha256(str(position).encode()).digest(),
    )


def as_row(desk: Desk, range_id: int, o: Outcome) -> dict[str, object]:
    """The same for those who write it by columns."""
    values = (desk.run, range_id, o.position, o.key, o.attempt, o.kind.value, o.code, o.enhanced, o.reply,
              o.relay_queue_id, o.address_hash)  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


# --- the ways: each writes all outcomes and returns when they are durable ------------------------------
def owned(desk: Desk, outcomes: Sequence[Outcome], batch: int) -> None:
    """Claim a batch, record it; a lease, a cursor and counters move with each."""
    mine = desk.own(account="bench/relay")
    for first in range(0, len(outcomes), batch):
        now = outcomes[first : first + batch]
        to = first + len(now)
        mine.claim(to, Positions.span(first, to))
        mine.record(now)
    mine.close()


def one_insert_each(desk: Desk, outcomes: Sequence[Outcome], _batch: int) -> None:
    """INSERT and commit in one round trip for each row: what a loop over recipients does."""
    names = ", ".join(COLUMNS)
    statement = f"INSERT INTO delivery ({names}) VALUES ({', '.join('%s' for _ in COLUMNS)})"
    range_id = desk.value("SELECT id FROM range")
    with closing(psycopg2.connect(desk.url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for o in outcomes:
                cursor.execute(statement, tuple(as_row(desk, range_id, o).values()))


def many_values(desk: Desk, outcomes: Sequence[Outcome], batch: int) -> None:
    """SQLAlchemy's insertmanyvalues: one INSERT with many VALUES for each batch, and a commit."""
    range_id = desk.value("SELECT id FROM range")
    engine = desk.engine()
    for first in range(0, len(outcomes), batch):
        with engine.begin() as connection:
            connection.execute(insert(delivery), [as_row(desk, range_id, o) for o in outcomes[first : first + batch]])


def copy_alone(desk: Desk, outcomes: Sequence[Outcome], batch: int) -> None:
    """COPY and commit for each batch: the least that rows in this table can cost."""
    range_id = desk.value("SELECT id FROM range")
    engine = desk.engine()
    for first in range(0, len(outcomes), batch):
        with engine.begin() as connection:
            copy_outcomes(connection, desk.run, range_id, outcomes[first : first + batch])


WAYS = (
    Way("one INSERT a message", 1, one_insert_each, SLOW_SHARE),
    Way("insertmanyvalues", PEER_BATCH, many_values),
    Way("COPY alone", PEER_BATCH, copy_alone),
    *(Way(f"owned, batches of {batch}", batch, owned) for batch in BATCHES),
)


def measure(postgres: PostgresServer, way: Way, rows: int) -> Written:
    """Write `rows` rows in a database of their own."""
    url = postgres.database()
    assert postgres.process
    with Desk(url, keys=rows, range_size=rows) as desk:
        outcomes = [outcome(n) for n in range(rows)]
        desk.sql("VACUUM ANALYZE")
        desk.sql("CHECKPOINT")
        gc.collect()
        server, client, began = cpu_seconds(postgres.process.pid), time.process_time(), time.perf_counter()
        way.write(desk, outcomes, way.batch)
        seconds = time.perf_counter() - began
        client, server = time.process_time() - client, cpu_seconds(postgres.process.pid) - server
        found = desk.value("SELECT count(*) FROM delivery WHERE outcome = 'sent'")
        if found != rows or (way.write is owned and desk.totals() != {"planned": rows, "sent": rows}):
            raise RuntimeError(f"{way.name}: {found} rows of {rows} were written, totals {desk.totals()}")
    with closing(psycopg2.connect(postgres.url("postgres"))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {url.rsplit('/', 1)[1]} WITH (FORCE)")
    return Written(rows / seconds, client / rows * 1e6, server / rows * 1e6)


def median(runs: Sequence[Written]) -> Written:
    """Of each figure by itself."""
    return Written(*(statistics.median(column) for column in zip(*(asdict(run).values() for run in runs), strict=True)))


def main() -> None:
    """Measure all ways."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=25_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    where, runs = machine(), {way.name: list[Written]() for way in WAYS}
    with tempfile.TemporaryDirectory() as folder, PostgresServer(Path(folder), **DURABLE) as postgres:
        for _ in range(options.rounds):
            for way in WAYS:
                runs[way.name].append(measure(postgres, way, options.rows // way.share))
    print("way                     rows a transaction   rows/s   client us a row   postgres us a row")
    for way in WAYS:
        m = median(runs[way.name])
        print(f"{way.name:24} {way.batch:17} {m.per_second:8.0f} {m.client_us:17.1f} {m.postgres_us:19.1f}")
    ways = {
        way.name: {"batch": way.batch, "rows": options.rows // way.share, "runs": [asdict(w) for w in runs[way.name]]}
        for way in WAYS
    }
    save("bench-ledger", {"machine": where, "options": vars(options), "ways": ways})
    best = median(runs[f"owned, batches of {PEER_BATCH}"])
    slow, copied = median(runs["one INSERT a message"]), median(runs["COPY alone"])
    print(
        f"bench-ledger: rows_per_second={best.per_second:.0f} client_us={best.client_us:.1f}"
        f" postgres_us={best.postgres_us:.1f} single={best.per_second / slow.per_second:.1f}x"
        f" copy={best.per_second / copied.per_second:.0%}"
    )


if __name__ == "__main__":
    main()
