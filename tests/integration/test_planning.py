"""The verb `plan` over a real ledger and a real recipients' database."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
import sqlalchemy as sa

from mailfleet_sender import last_words, planning
from mailfleet_sender.contract import environment
from mailfleet_sender.contract.accounts import Report, ReportReason, RunState
from mailfleet_sender.contract.campaign import Campaign, DuplicateAddresses
from mailfleet_sender.contract.environment import Exit
from mailfleet_sender.ledger import Runs, migrate, open_ledger
from mailfleet_sender.settings import PlanSettings
from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from services import PostgresServer

TABLE = """
    CREATE TABLE subscribers (id bigint PRIMARY KEY, email text, first_name text, plan text);
    INSERT INTO subscribers SELECT g, 'user' || g || '@example.com', 'Name ' || g, 'gold'
        FROM generate_series(1, 1200) g;
    UPDATE subscribers SET email = 'USER1@example.com' WHERE id = 2;
    UPDATE subscribers SET email = NULL WHERE id = 3;
"""


@dataclass
class Shop:
    """A recipients' database beside a ledger, and the verb over both."""

    ledger_url: str
    database_url: str
    ledger: sa.Engine
    run: int = 0

    def sql(self, text: str) -> None:
        connection = psycopg2.connect(self.database_url)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(text)
        finally:
            connection.close()

    def campaign(
        self, *, table: dict[str, Any] | None = None, exclude: Sequence[dict[str, Any]] = (), **message: Any
    ) -> Campaign:
        return Campaign.model_validate(
            {
                "recipients": {"table": {"name": "subscribers", **(table or {})}, "exclude": exclude},
                "message": {
                    "from": "Shop <news@example.com>",
                    "subject": "Hi {{ first_name }}",
                    "text": "x",
                    **message,
                },
            }
        )

    def plan(self, campaign: Campaign | None = None, *, database_url: str | None = None) -> Exit:
        row = Runs(self.ledger).ensure("marketing", "news", "1", campaign or self.campaign())
        if campaign and row.definition_hash != campaign.definition_hash():
            assert Runs(self.ledger).edit(row.id, campaign)
        self.run = row.id
        return planning.plan_run(
            self.ledger, run=row.id, database_url=database_url or self.database_url, reporter="news-plan-abc"
        )

    def planner(self, run: int) -> subprocess.Popen[str]:
        """The verb in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "mailfleet_sender", "plan"],
            env={
                environment.LEDGER_URL: self.ledger_url,
                environment.DATABASE_URL: self.database_url,
                environment.RUN: str(run),
                environment.POD_NAME: "news-plan-abc",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def value(self, sql: str) -> Any:
        """One value of the ledger."""
        with self.ledger.connect() as connection:
            return connection.scalar(sa.text(sql))

    def reports(self) -> list[Report]:
        return list(Runs(self.ledger).reports([self.run]))

    def refused(self, campaign: Campaign | None = None, **more: Any) -> tuple[Exit, ReportReason, str]:
        ended = self.plan(campaign, **more)
        (only,) = self.reports()
        row = Runs(self.ledger).get(self.run)
        assert row
        assert row.state is RunState.PLANNING
        assert only.reporter == "news-plan-abc"
        assert len(only.message.encode()) <= 256
        return ended, only.reason, only.message


@pytest.fixture
def shop(postgres: PostgresServer) -> Iterator[Shop]:
    ledger_url, database_url = postgres.database(), postgres.database()
    migrate(ledger_url)
    ledger = open_ledger(ledger_url, application_name="test")
    made = Shop(ledger_url, database_url, ledger)
    made.sql(TABLE)
    yield made
    ledger.dispose()


def test_a_plan_is_published_with_exact_counts(shop: Shop) -> None:
    assert shop.plan() is Exit.DONE
    row = Runs(shop.ledger).get(shop.run)
    assert row
    assert (row.state, row.planned, row.skipped, row.key_type) == (RunState.PLANNED, 1200, 2, "bigint")
    assert shop.reports() == []
    with shop.ledger.connect() as connection:
        pages = connection.execute(
            sa.text("SELECT wave, number, cardinality(keys), reason FROM page ORDER BY wave DESC, number")
        ).all()
    assert [tuple(p) for p in pages] == [
        (0, 0, 500, None),
        (0, 1, 500, None),
        (0, 2, 198, None),
        (-1, 0, 1, "NoAddress"),
        (-1, 1, 1, "DuplicateAddress"),
    ]


def test_a_second_row_with_one_address_is_mailed_where_the_campaign_says_so(shop: Shop) -> None:
    campaign = shop.campaign()
    recipients = campaign.recipients.model_copy(update={"duplicate_addresses": DuplicateAddresses.SEND})
    assert shop.plan(campaign.model_copy(update={"recipients": recipients})) is Exit.DONE
    row = Runs(shop.ledger).get(shop.run)
    assert row
    assert (row.planned, row.skipped) == (1200, 1)


def test_an_excluded_address_is_no_part_of_the_audience(shop: Shop) -> None:
    shop.sql(
        "CREATE TABLE staff (mail text); INSERT INTO staff VALUES ('User5@example.com'), (NULL), ('user1@example.com')"
    )
    exclude = [{"table": {"name": "staff", "emailColumn": "mail"}}]
    assert shop.plan(shop.campaign(exclude=exclude)) is Exit.DONE
    row = Runs(shop.ledger).get(shop.run)
    assert row
    assert (row.planned, row.skipped) == (1200, 4)
    with shop.ledger.connect() as connection:
        skipped = connection.execute(
            sa.text("SELECT reason, keys FROM page WHERE reason IS NOT NULL ORDER BY reason")
        ).all()
    assert [tuple(p) for p in skipped] == [("Excluded", ["1", "2", "5"]), ("NoAddress", ["3"])]


def test_planning_again_changes_nothing(shop: Shop) -> None:
    assert shop.plan() is Exit.DONE
    first = Runs(shop.ledger).get(shop.run)
    assert shop.plan() is Exit.DONE
    assert Runs(shop.ledger).get(shop.run) == first


def test_a_mended_cause_clears_the_report_and_sweeps_what_was_written(shop: Shop) -> None:
    assert shop.refused(shop.campaign(table={"name": "subscriber"}))[1] is ReportReason.TABLE_NOT_FOUND
    shop.sql("ALTER TABLE subscribers RENAME TO subscriber")
    assert shop.plan(shop.campaign(table={"name": "subscriber"})) is Exit.DONE
    assert shop.reports() == []
    with shop.ledger.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(DISTINCT plan) FROM page")) == 1


@pytest.mark.parametrize(
    ("sql", "changes", "reason", "words"),
    [
        ("", {"subject": "{{ frist_name }}"}, ReportReason.COLUMN_NOT_FOUND, ["'frist_name'", "first_name"]),
        ("", {"text": "{% if %}"}, ReportReason.TEMPLATE_INVALID, ["message.text", "line 1"]),
        (
            "",
            {"text": "{{ first_name + 1 }}"},
            ReportReason.TEMPLATE_INVALID,
            ["50 of 50", "message.text", "TypeError"],
        ),
        ("", {"from": "Shop"}, ReportReason.ADDRESS_INVALID, ["message.from"]),
        (
            "UPDATE subscribers SET first_name = NULL WHERE id > 1190",
            {},
            ReportReason.TEMPLATE_INVALID,
            ["'first_name' is NULL in 10 rows", "message.subject", "{{ first_name|default('...') }}"],
        ),
        ("", {"table": {"keyColumn": "plan"}}, ReportReason.KEY_NOT_UNIQUE, ["'plan' holds 1199 doubled"]),
        ("UPDATE subscribers SET plan = NULL", {"table": {"keyColumn": "plan"}}, ReportReason.KEY_NULL, ["1200 rows"]),
        (
            "",
            {"table": {"match": [{"column": "id", "operator": "Equals", "values": ["x"]}]}},
            ReportReason.MATCH_INVALID,
            ["'id'", "bigint"],
        ),
        (
            "",
            {"exclude": [{"table": {"name": "staff"}}]},
            ReportReason.TABLE_NOT_FOUND,
            ["spec.recipients.exclude[0].table", "public.staff"],
        ),
        (
            "ALTER TABLE subscribers ALTER id TYPE numeric",
            {},
            ReportReason.KEY_TYPE_UNSUPPORTED,
            ["'id'", "numeric", "view"],
        ),
    ],
)
def test_what_cannot_be_planned_is_reported_with_its_remedy(
    shop: Shop, sql: str, changes: dict[str, Any], reason: ReportReason, words: list[str]
) -> None:
    if sql:
        shop.sql(sql)
    ended, seen, message = shop.refused(shop.campaign(**changes))
    assert (ended, seen) == (Exit.IMPOSSIBLE, reason)
    assert all(word in message for word in words), message


def test_a_null_with_a_default_is_no_reason(shop: Shop) -> None:
    shop.sql("UPDATE subscribers SET first_name = NULL WHERE id > 1190")
    assert shop.plan(shop.campaign(subject="Hi {{ first_name|default('there') }}")) is Exit.DONE


def test_a_null_in_a_row_that_gets_no_mail_is_no_reason(shop: Shop) -> None:
    shop.sql("UPDATE subscribers SET first_name = NULL WHERE id = 3")
    assert shop.plan() is Exit.DONE


def test_one_hostile_row_does_not_stop_a_plan(shop: Shop) -> None:
    shop.sql("UPDATE subscribers SET first_name = repeat('ä', 9000) WHERE id = 1")
    shop.sql(r"UPDATE subscribers SET first_name = E'\r\n.\r\nRCPT TO:<x@example.com>\r\n{{ 7 }}<b>' WHERE id = 4")
    shop.sql("UPDATE subscribers SET first_name = repeat('x', 2000000) WHERE id = 5")
    assert shop.plan(shop.campaign(html="<p>{{ first_name }}</p>")) is Exit.DONE


def test_an_unreachable_database_may_come_back(shop: Shop) -> None:
    ended, reason, message = shop.refused(database_url="postgresql://me:s3cret@127.0.0.1:1/shop")
    assert (ended, reason) == (Exit.INTERRUPTED, ReportReason.DATABASE_UNAVAILABLE)
    assert "s3cret" not in message


def test_a_refused_login_may_be_mended_in_the_secret(shop: Shop) -> None:
    wrong = shop.database_url.replace("postgres@", "stranger:s3cret@")
    ended, reason, message = shop.refused(database_url=wrong)
    assert (ended, reason) == (Exit.INTERRUPTED, ReportReason.DATABASE_REFUSED)
    assert "s3cret" not in message


def test_a_view_that_fails_is_reported_without_a_value_of_its_rows(shop: Shop) -> None:
    shop.sql(
        "CREATE VIEW bad AS SELECT id, CASE WHEN id = 700 THEN (email::int)::text ELSE email END AS email "
        "FROM subscribers"
    )
    ended, reason, message = shop.refused(shop.campaign(table={"name": "bad"}, subject="x"))
    assert (ended, reason) == (Exit.INTERRUPTED, ReportReason.INTERNAL_ERROR)
    assert "22P02" in message
    assert "user700" not in message


def test_a_run_that_the_ledger_does_not_know_is_never_planned(shop: Shop) -> None:
    ended = planning.plan_run(shop.ledger, run=4711, database_url=shop.database_url, reporter="x")
    assert ended is Exit.IMPOSSIBLE


def test_a_ledger_that_is_away_leaves_last_words(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = tmp_path / "termination-log"
    monkeypatch.setattr(last_words, "TERMINATION_LOG", str(words))
    away = PlanSettings("postgresql://me:s3cret@127.0.0.1:1/ledger", shop.database_url, 1, "news-plan-abc")
    assert planning.plan(away) is Exit.INTERRUPTED
    assert "ledger" in words.read_text()
    assert "s3cret" not in words.read_text()


def test_a_plan_of_many_needs_no_more_memory_than_one_of_few(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    """The verb in a process of its own; the smaller plan already fills what is held at once, 60,000 keys."""
    peaks = {}
    for count in (60_000, 240_000):
        shop.sql(
            f"DROP TABLE subscribers; CREATE TABLE subscribers AS SELECT g::bigint AS id, "
            f"'user' || g || '@example.com' AS email, 'Name ' || g AS first_name FROM generate_series(1, {count}) g;"
            "ALTER TABLE subscribers ADD PRIMARY KEY (id); ANALYZE subscribers"
        )
        run = Runs(shop.ledger).ensure("marketing", "news", str(count), shop.campaign()).id
        planner = shop.planner(run)
        said = json.loads(planner.communicate()[1].splitlines()[-1])
        assert planner.returncode == 0
        assert said["planned"] == count
        peaks[count] = said["peak_rss_kib"]
        with capsys.disabled():
            print(f"\nplan of {count}: {said['seconds']} s, peak RSS {said['peak_rss_kib']} KiB")
    assert peaks[240_000] < peaks[60_000] * 1.1


# --- planners that are killed, come twice, or come late ------------------------------------------------

MANY = 100_000
KEPT = """
    SELECT count(DISTINCT k) = count(*) AND count(*) = :many
           AND count(DISTINCT p.plan) = 1 AND min(p.plan) = min(r.plan_id)
    FROM run r JOIN page p ON p.run = r.id, unnest(p.keys) k
"""


@pytest.fixture
def slow(shop: Shop) -> Shop:
    """A shop of many, above a ledger that writes two hundred pages in a second: time enough to die in."""
    shop.sql(
        "INSERT INTO subscribers SELECT g, 'user' || g || '@example.com', 'N', 'x' "
        f"FROM generate_series(1201, {MANY}) g"
    )
    with shop.ledger.begin() as connection:
        connection.execute(
            sa.text(
                "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END $$"
            )
        )
        connection.execute(sa.text("CREATE TRIGGER slow BEFORE INSERT ON page FOR EACH ROW EXECUTE FUNCTION slow()"))
    shop.run = Runs(shop.ledger).ensure("marketing", "news", "1", shop.campaign()).id
    return shop


def planned_once(shop: Shop) -> bool:
    """Every recipient is in the published plan once, and no page of another plan is left."""
    row = Runs(shop.ledger).get(shop.run)
    assert row
    assert (row.state, row.planned, row.skipped) == (RunState.PLANNED, MANY, 2)
    with shop.ledger.connect() as connection:
        return bool(connection.scalar(sa.text(KEPT), {"many": MANY}))


@pytest.mark.parametrize("seed", range(4))
def test_a_planner_killed_at_any_moment_leaves_the_plan_to_the_next(slow: Shop, seed: int) -> None:
    pages = (0, *random.Random(seed).choices(range(1, 200), k=2))
    for number, least in enumerate(pages, 1):
        planner = slow.planner(slow.run)
        seen = (
            f"SELECT plan_wanted = {number} AND (SELECT count(*) FROM page WHERE plan = {number}) >= {least} FROM run"
        )
        wait_for("the planner has written so much", lambda seen=seen: slow.value(seen), interval=0.01)
        planner.kill()
        planner.communicate()
        if slow.value("SELECT state FROM run") == RunState.PLANNED:
            break
    last = slow.planner(slow.run)
    assert last.communicate()[0] is None
    assert last.returncode == Exit.DONE
    assert planned_once(slow)


def test_planners_that_run_at_once_publish_one_plan(slow: Shop) -> None:
    planners = [slow.planner(slow.run) for _ in range(3)]
    wait_for("all have begun", lambda: slow.value("SELECT plan_wanted = 3 OR state <> 'Planning' FROM run"))
    planners[0].kill()
    for planner in planners:
        planner.communicate()
    assert [p.returncode for p in planners[1:]] == [Exit.DONE] * 2
    assert slow.plan() is Exit.DONE  # sweeps what the killed one may have written after the others' end
    assert planned_once(slow)


def test_a_plan_of_an_older_spec_that_finishes_after_an_edit_is_not_published(slow: Shop) -> None:
    """Frozen half-way, thawed when the newer plan stands."""
    older = slow.planner(slow.run)
    wait_for("the older is half-way", lambda: slow.value("SELECT count(*) > 0 FROM page"), interval=0.01)
    older.send_signal(signal.SIGSTOP)
    edited = slow.campaign(subject="other")
    assert Runs(slow.ledger).edit(slow.run, edited)
    assert slow.plan(edited) is Exit.DONE
    row = Runs(slow.ledger).get(slow.run)
    older.send_signal(signal.SIGCONT)
    older.communicate()
    # Interrupted, if the ledger ended its transaction meanwhile; then the next planner finds nothing to do but sweep.
    assert older.returncode in {Exit.DONE, Exit.INTERRUPTED}
    assert slow.plan(edited) is Exit.DONE
    assert Runs(slow.ledger).get(slow.run) == row
    assert planned_once(slow)


def test_what_a_dead_planner_left_is_swept_by_one_that_has_nothing_to_do(shop: Shop) -> None:
    assert shop.plan() is Exit.DONE
    with shop.ledger.begin() as connection:
        connection.execute(sa.text("UPDATE run SET plan_wanted = plan_wanted + 1"))
        connection.execute(
            sa.text("INSERT INTO page (run, plan, wave, number, keys) SELECT id, 0, 0, 0, '{1}' FROM run")
        )
    assert shop.plan() is Exit.DONE
    assert shop.value("SELECT count(*) FROM page WHERE plan = 0") == 0
    assert shop.value("SELECT count(*) FROM page") == 5
