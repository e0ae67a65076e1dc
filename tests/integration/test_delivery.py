"""Real sender processes on real Postgres, Redis and the oracle: what a campaign does to its recipients."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg2
import pytest

from books import check_books
from fleet import Fleet, campaign, subscribers
from mailfleet_sender.contract import environment
from proxy import Proxy
from services import wait_for
from sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from services import RedisServer


@pytest.fixture
def fleet(database_url: str, redis_url: str, sink: Sink, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet over one database; the test makes the table and may change the definition before `start`."""
    with Fleet(database_url, database_url, redis_url, sink, tmp_path, rate="5000/s") as fleet:
        yield fleet


def execute(url: str, statement: str) -> None:
    with contextlib.closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)


def finished(fleet: Fleet) -> None:
    """All ended, the books right, and the oracle agrees with an independent SELECT."""
    totals = fleet.totals
    assert totals.remaining == 0
    check_books(fleet.ledger_url, fleet.run)


def test_every_recipient_gets_exactly_one_mail(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 3_210)
    fleet.start()
    fleet.work(3)
    finished(fleet)
    assert fleet.totals.sent == fleet.totals.planned == 3_210
    assert fleet.accepted() == dict.fromkeys(fleet.audience().values(), 1)
    assert {code for _, code in fleet.ended} == {0}


def test_the_last_claim_may_take_longer_than_its_slot_is_away(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 3)
    with Proxy(fleet.ledger_url) as proxy:
        proxy.delay_seconds = 0.05  # several round trips: a claim takes four times as long as it is made ahead
        fleet.environ[environment.LEDGER_URL] = proxy.url
        fleet.start()
        fleet.work(1)
    finished(fleet)
    assert fleet.totals.sent == 3
    assert {code for _, code in fleet.ended} == {0}


def test_a_terminated_sender_leaves_nothing_uncertain_and_its_successor_goes_on(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 4_000)
    fleet.rate = "1000/s"
    fleet.start()
    for part in (500, 1_500, 2_500):
        wait_for(f"{part} accepted", lambda part=part: fleet.tend(2) and fleet.sink.summary().accepted >= part)
        assert set(fleet.terminate()) <= {0, 75, -15}  # -15: before the program itself began
        assert not any((fleet.totals.uncertain, fleet.totals.failed))
        assert fleet.totals.sent == fleet.sink.summary().accepted
    fleet.work(2)
    finished(fleet)
    assert fleet.held_against_the_oracle() == {"lost": 0, "duplicates": 0, "doubted": 0}


def test_a_relay_that_answers_451_first_defers_and_the_retry_wave_delivers(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 600)
    fleet.definition = campaign(retry={"initialDelaySeconds": 1})
    fleet.sink.behave({"phase": "rcpt", "reply": "451 4.7.1 greylisted, try later", "once_per_recipient": True})
    fleet.start()
    fleet.work(2)
    assert fleet.totals.deferred == 600
    while fleet.totals.deferred:
        wait_for("some of the deferred are due", lambda: fleet.runs.retry_wave(fleet.run, fleet.range_size))
        fleet.work(2)
    finished(fleet)
    assert fleet.totals.sent == 600
    assert fleet.held_against_the_oracle() == {"lost": 0, "duplicates": 0, "doubted": 0}


def test_a_row_deleted_or_unsubscribed_since_the_plan_is_skipped_never_mailed(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 900)
    execute(fleet.database_url, "ALTER TABLE subscribers ADD subscribed boolean NOT NULL DEFAULT true")
    match = [{"column": "subscribed", "operator": "Equals", "values": ["true"]}]
    fleet.definition = campaign(recipients={"table": {"name": "subscribers", "match": match}})
    fleet.start()
    execute(fleet.database_url, "DELETE FROM subscribers WHERE id % 3 = 0")
    execute(fleet.database_url, "UPDATE subscribers SET subscribed = false WHERE id % 3 = 1")
    fleet.work(2)
    finished(fleet)
    assert (fleet.totals.sent, fleet.totals.skipped) == (300, 600)
    assert fleet.sink.summary().accepted == 300


def test_without_redis_nothing_is_sent_and_with_it_the_fleet_goes_on_by_itself(
    fleet: Fleet, redis_server: RedisServer
) -> None:
    subscribers(fleet.database_url, 3_000)
    fleet.rate = "500/s"
    fleet.start()
    fleet.tend(2)
    wait_for("sending", lambda: fleet.sink.summary().accepted > 300)
    redis_server.kill()
    try:
        reports = wait_for("the senders tell of it", lambda: fleet.runs.reports([fleet.run]))
        assert {r.reason for r in reports} == {"LimiterUnavailable"}
        before = fleet.sink.summary().accepted
        execute(fleet.database_url, "SELECT pg_sleep(1)")
        assert fleet.sink.summary().accepted == before
    finally:
        redis_server.start()
    fleet.work(2)
    finished(fleet)
    assert fleet.totals.sent == 3_000
    assert fleet.held_against_the_oracle() == {"lost": 0, "duplicates": 0, "doubted": 0}


def test_a_relay_that_is_down_is_waited_out_and_told(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 500)
    fleet.sink.behave({"phase": "connect", "reply": "421 4.3.0 back soon", "then": "close"})
    fleet.start()
    fleet.tend(1)
    reports = wait_for("the sender tells of it", lambda: fleet.runs.reports([fleet.run]))
    assert [r.reason for r in reports] == ["RelayUnavailable"]
    assert fleet.totals.remaining == 500
    fleet.sink.behave()
    fleet.work(1)
    finished(fleet)
    assert fleet.totals.sent == 500
    assert not fleet.runs.reports([fleet.run])


def test_a_relay_that_refuses_the_sender_burns_nobody(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 500)
    fleet.sink.behave({"phase": "mail", "reply": "550 5.1.8 sender address rejected: <news@example.com>"})
    fleet.start()
    fleet.tend(1)
    (sender,) = fleet.senders
    assert sender.process.wait(60) == 75
    (report,) = fleet.runs.reports([fleet.run])
    assert report.reason == "SenderFault"
    assert "5.1.8" in report.message
    assert "news@example.com" not in report.message
    assert fleet.totals.remaining == 500
    fleet.sink.behave()
    fleet.work(1)
    finished(fleet)
    assert fleet.totals.sent == 500


def test_a_relay_that_refuses_the_credentials_burns_nobody_and_a_new_pod_goes_on(
    fleet: Fleet, sink: Sink, tmp_path: Path
) -> None:
    subscribers(fleet.database_url, 500)
    (tmp_path / "closed").mkdir()
    with Sink(tmp_path / "closed", "--auth=shop:right") as closed:
        fleet.sink, fleet.relay_changes = closed, {"authenticate": True}
        fleet.environ = {"MAILFLEET_SMTP_USERNAME": "shop", "MAILFLEET_SMTP_PASSWORD": "wrong"}
        fleet.start()
        fleet.tend(1)
        (sender,) = fleet.senders
        assert sender.process.wait(60) == 75
        assert [r.reason for r in fleet.runs.reports([fleet.run])] == ["SenderFault"]
        assert fleet.totals.remaining == 500
        assert "wrong" not in sender.log.read_text()
        fleet.environ["MAILFLEET_SMTP_PASSWORD"] = "right"
        fleet.work(1)
        finished(fleet)
        assert fleet.totals.sent == 500


def test_a_recipient_whom_the_relay_always_puts_off_is_deferred_and_does_not_hold_up_the_rest(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 500)
    fleet.sink.behave({"phase": "rcpt", "recipient": "^user7@", "reply": "421 4.7.0 try again later"})
    fleet.start()
    fleet.work(1)
    assert (fleet.totals.sent, fleet.totals.deferred) == (499, 1)


def test_a_reset_after_the_dot_is_uncertain_and_is_not_sent_again_under_skip(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 500)
    fleet.sink.behave({"phase": "dot", "then": "reset", "accept": True, "count": 7})
    fleet.start()
    fleet.work(1)
    finished(fleet)
    assert (fleet.totals.sent, fleet.totals.uncertain) == (493, 7)
    assert fleet.held_against_the_oracle() == {"lost": 0, "duplicates": 0, "doubted": 7}


def test_under_resend_an_uncertain_recipient_is_sent_once_more_with_the_same_message_id(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 500)
    fleet.definition = campaign(onUncertain="Resend")
    fleet.sink.behave({"phase": "dot", "then": "reset", "accept": True, "count": 7})
    fleet.start()
    fleet.work(1)
    finished(fleet)
    assert (fleet.totals.sent, fleet.totals.uncertain) == (500, 0)
    assert fleet.held_against_the_oracle() == {"lost": 0, "duplicates": 7, "doubted": 7}
    ids = [m.message_id for m in fleet.sink.accepted()]
    assert len(ids) - len(set(ids)) == 7


def test_large_columns_do_not_fill_a_senders_memory(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 600)
    execute(fleet.database_url, "ALTER TABLE subscribers ADD story text")
    execute(fleet.database_url, "UPDATE subscribers SET story = repeat('x', 900000)")
    fleet.definition = campaign(
        message={"from": "news@example.com", "subject": "News", "text": "{{ story | length }} letters"}
    )
    fleet.start()
    fleet.work(1)
    finished(fleet)
    assert fleet.totals.sent == 600
    (line,) = fleet.sender_lines("sender ends")
    assert line["peak_rss_kib"] < 200 * 1024  # all rows together: 540 MB
