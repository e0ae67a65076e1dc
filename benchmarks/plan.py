"""How long the verb `plan` takes, and what memory it needs, on 1,000,000 and on 10,000,000 lifelike recipients.

usage: plan.py [--recipients 1000000 10000000] [--files 1000000] [--lock FILE]
A private Postgres at its default settings holds the recipients (a logged table with a primary key for each size)
and the ledger. Of every 1,000 rows one has no address, one an invalid one, one is not ASCII, ten repeat an earlier one
in capitals, and five are excluded by another table. With `--files` so many of them are a CSV file as well, without the
excluded ones' table. What the plan counted is compared with an independent SELECT.
Writes build/bench-plan.json. The last line is for machines; the exit status says whether the counts are right and all
limits hold.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
from measuring import machine, save

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

from mailfleet_sender.contract import environment  # noqa: E402
from mailfleet_sender.contract.campaign import Campaign  # noqa: E402
from mailfleet_sender.ledger import Runs, migrate, open_ledger  # noqa: E402
from services import PostgresServer  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = {1_000_000: 5.0, 10_000_000: 60.0}
"""Limits, by recipients: issue 4."""
RSS_MB = 150
"""Limit of the planner's peak resident memory, in 10^6 octets."""
DEFAULTS = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "128MB"}
"""Postgres' own, where the tests' server has others."""

TABLES = """
CREATE TABLE subscribers (
    id bigint NOT NULL, email text, first_name text, last_name text, country char(2), subscribed boolean NOT NULL,
    created timestamptz NOT NULL
);
INSERT INTO subscribers
SELECT g,
       CASE WHEN g % 1000 = 1 THEN NULL
            WHEN g % 1000 = 2 THEN first || ' at example.com'
            WHEN g % 1000 = 3 THEN 'jürgen' || g || '@example.com'
            WHEN s < g THEN upper(first || '.' || last || s) || '@' || domain
            ELSE first || '.' || last || g || '@' || domain END,
       initcap(first), initcap(last), (ARRAY['DE', 'AT', 'FR', 'US', 'GB'])[1 + g % 5], g % 10 <> 0,
       timestamptz '2020-01-01Z' + g * interval '7 seconds'
FROM (
    SELECT g, s,
           (ARRAY['anna', 'ben', 'carla', 'david', 'emma', 'felix', 'greta', 'hannes', 'ines', 'jonas', 'klara',
                  'luis', 'mia'])[1 + (s * 7919) % 13] AS first,
           (ARRAY['mueller', 'smith', 'rossi', 'dubois', 'garcia', 'novak', 'jensen', 'kowalski', 'silva', 'tanaka',
                  'brown'])[1 + (s * 104729) % 11] AS last,
           (ARRAY['gmail.com', 'example.com', 'example.org', 'outlook.com', 'yahoo.com', 'web.de',
                  'mail.example.net'])[1 + (s / 100) % 7] AS domain
    FROM generate_series(1, {count}::bigint) g, LATERAL (
        -- Ten of a thousand repeat the address of a row 2,000 to 2,020 before.
        SELECT CASE WHEN g % 100 = 50 AND g > 2100 THEN g - 2000 - g / 100 % 20 ELSE g END AS s) source
) x;
ALTER TABLE subscribers ADD PRIMARY KEY (id);
CREATE TABLE staff (email text);
INSERT INTO staff SELECT initcap(email) FROM subscribers WHERE id % 200 = 150;
INSERT INTO staff SELECT 'stranger' || g || '@example.com' FROM generate_series(1, {count} / 200) g;
INSERT INTO staff VALUES (NULL), (''), ('nobody');
"""

EXPECTED = """
WITH judged AS (
    SELECT id, lower(email) AS email,
           CASE WHEN id % 1000 = 1 THEN 'NoAddress' WHEN id % 1000 = 2 THEN 'InvalidAddress'
                WHEN id % 1000 = 3 THEN 'AddressNotAscii'
                WHEN lower(email) IN (SELECT lower(email) FROM staff WHERE email IS NOT NULL) THEN 'Excluded' END AS why
    FROM subscribers
), first AS (SELECT email, min(id) AS id FROM judged WHERE why IS NULL GROUP BY email)
SELECT coalesce(j.why, CASE WHEN f.id < j.id THEN 'DuplicateAddress' END) AS reason, count(*)
FROM judged j LEFT JOIN first f ON f.email = j.email GROUP BY 1
"""
"""What the plan must count, found another way: by how the rows were made, and by min() instead of a window."""

CAMPAIGN = {
    "recipients": {"table": {"name": "subscribers"}, "exclude": [{"table": {"name": "staff"}}]},
    "message": {
        "from": "Shop <news@example.com>",
        "subject": "{{ first_name }}, our autumn news",
        "text": "Hello {{ first_name }} {{ last_name|default('') }}, {{ country }} has autumn.",
    },
}


CSV = {"csv": {"configMapKeyRef": {"name": "list", "key": "people.csv"}}}


@dataclass(frozen=True, slots=True)
class Measured:
    """One plan.

    Attributes:
        seconds: from the start of the process to its end.
        rss_mb: peak resident memory of the process, in 10^6 octets.
        right: the counts and the keys of the pages are those of the independent SELECT.
        source: table or csv.
    """

    recipients: int
    seconds: float
    rss_mb: float
    right: bool
    source: str = "table"


def rows(url: str, sql: str) -> list[tuple[Any, ...]]:
    """Run SQL, and give the rows of the last statement."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def locked(file: str | None, kind: int) -> Iterator[None]:
    """Alone on the machine (LOCK_EX), or beside others (LOCK_SH), among those who keep to the same file."""
    if file is None:
        yield
        return
    with Path(file).open("a") as lock:
        fcntl.flock(lock, kind)
        yield


def write_csv(url: str, folder: Path) -> None:
    """The table as a file, where the planner finds the ConfigMap `list`."""
    rows(url, "TRUNCATE staff")
    (folder / "list").mkdir(exist_ok=True)
    query = "SELECT email, first_name, last_name, country FROM subscribers ORDER BY id"
    with (
        closing(psycopg2.connect(url)) as connection,
        connection.cursor() as cursor,
        (folder / "list/people.csv").open("wb") as file,
    ):
        cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)", file)


def measure(postgres: PostgresServer, count: int, lock: str | None, files: Path | None = None) -> Measured:
    """Make the table, or with `files` a file of it, plan it, count it."""
    shop, ledger_url = postgres.database(), postgres.database()
    migrate(ledger_url)
    ledger = open_ledger(ledger_url, application_name="bench-plan")
    with locked(lock, fcntl.LOCK_SH):
        rows(shop, TABLES.format(count=count))
        rows(shop, "VACUUM ANALYZE")
        rows(shop, "CHECKPOINT")
        if files:
            write_csv(shop, files)
    campaign = CAMPAIGN | ({"recipients": CSV} if files else {})
    run = Runs(ledger).ensure("marketing", "news", "1", Campaign.model_validate(campaign)).id
    ledger.dispose()
    with locked(lock, fcntl.LOCK_EX):
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "mailfleet_sender", "plan"],
            env={
                environment.LEDGER_URL: ledger_url,
                **({environment.CONFIG_FOLDER: str(files)} if files else {environment.DATABASE_URL: shop}),
                environment.RUN: str(run),
                environment.POD_NAME: "news-plan-abc",
            },
            check=True,
            stderr=subprocess.PIPE,
            text=True,
        )
        seconds = time.monotonic() - began
    said = json.loads(done.stderr.splitlines()[-1])
    expected = dict(rows(shop, EXPECTED))
    pages = dict(rows(ledger_url, "SELECT reason, sum(cardinality(keys)) FROM page GROUP BY 1"))
    ((size, distinct),) = rows(
        ledger_url,
        "SELECT pg_size_pretty(pg_total_relation_size('page')), "
        "(SELECT count(DISTINCT k::bigint) FROM page, unnest(keys) k)",
    )
    sent = expected.pop(None)
    right = (
        (said["planned"], said["reasons"]) == (count, expected)
        and pages == {None: sent, **expected}
        and distinct == count
    )
    rss_mb = said["peak_rss_kib"] * 1024 / 1e6
    reasons = " ".join(f"{reason}={n}" for reason, n in sorted(said["reasons"].items()))
    print(
        f"plan of a {'csv' if files else 'table'}: recipients={count} planned={said['planned']} to_send={sent} "
        f"skipped={said['skipped']} ({reasons}) "
        f"as the SELECT: {right}; {seconds:.2f} s (the verb itself {said['seconds']:.2f}), peak RSS {rss_mb:.0f} MB, "
        f"pages {size}",
        flush=True,
    )
    for url in (shop, ledger_url):
        rows(postgres.url("postgres"), f"DROP DATABASE {url.rsplit('/', 1)[1]}")
    return Measured(count, seconds, rss_mb, right, "csv" if files else "table")


def main() -> None:
    """Measure all sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recipients", type=int, nargs="+", default=list(SECONDS))
    parser.add_argument("--files", type=int, nargs="*", default=[1_000_000])
    parser.add_argument("--lock", help="a file to lock while a plan is measured, on a machine that others use")
    given = parser.parse_args()
    where = machine()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pg").mkdir()
        with PostgresServer(Path(folder) / "pg", **DEFAULTS) as postgres:
            seen = [measure(postgres, count, given.lock) for count in given.recipients]
            seen += [measure(postgres, count, given.lock, Path(folder)) for count in given.files]
    save("bench-plan", {"machine": where, "plans": [asdict(m) for m in seen]})
    rss_mb = max(m.rss_mb for m in seen)
    times = " ".join(f"{m.source}_{m.recipients // 1_000_000}m={m.seconds:.1f}s" for m in seen)
    print(f"bench-plan: {times} rss_mb={rss_mb:.0f}")
    in_time = all(m.source == "csv" or m.seconds < SECONDS.get(m.recipients, float("inf")) for m in seen)
    held = in_time and all(m.right for m in seen) and rss_mb < RSS_MB
    sys.exit(not held)


if __name__ == "__main__":
    main()
