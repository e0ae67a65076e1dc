"""What a sender at work tells Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from books import check_books
from fleet import Fleet, subscribers
from mailfleet_sender.contract import environment
from prometheus import Scrape
from services import free_port, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from sink import Sink

S = "mailfleet_sender_"


def test_a_scrape_of_a_sender_at_work(database_url: str, redis_url: str, sink: Sink, tmp_path: Path) -> None:
    port = free_port()
    subscribers(database_url, 2_000)
    sink.behave({"phase": "rcpt", "recipient": "^user1[0-9]@", "reply": "550 5.1.1 no such user"})
    with Fleet(database_url, database_url, redis_url, sink, tmp_path, rate="200/s", range_size=2_000) as fleet:
        fleet.environ[environment.METRICS_PORT] = str(port)
        fleet.start()
        wait_for("400 accepted", lambda: fleet.tend(1) and sink.summary().accepted >= 400)
        scrape = Scrape.of(port)
        assert set(fleet.terminate()) == {75}
        totals = fleet.totals
        check_books(fleet.ledger_url, fleet.run)
    scrape.check()
    mine = scrape.about(namespace="test", emailcampaign="campaign", relay="relay")
    assert 0 < len(mine) <= 60
    sent = scrape.values(f"{S}messages_total", outcome="sent", provider="other")[0]
    assert 350 <= sent <= totals.sent
    assert scrape.values(f"{S}messages_total", outcome="failed", provider="other") == [10] == [totals.failed]
    assert scrape.values(f"{S}smtp_transaction_duration_seconds_count") == [sent + 10]
    assert scrape.values(f"{S}ledger_commit_duration_seconds_count")[0] > 0
    assert scrape.values(f"{S}permits_granted_total")[0] >= sent
    assert scrape.values(f"{S}permit_wait_seconds_total")[0] > 0
    assert scrape.values(f"{S}connections")[0] >= 1
    assert scrape.values(f"{S}connections_opened_total")[0] >= 1
    assert scrape.values("process_resident_memory_bytes")[0] > 0
    assert "@" not in scrape.text


def test_a_port_that_is_taken_keeps_no_sender_from_its_work(
    database_url: str, redis_url: str, sink: Sink, tmp_path: Path
) -> None:
    subscribers(database_url, 50)
    with Fleet(database_url, database_url, redis_url, sink, tmp_path, rate="1000/s") as fleet:
        fleet.environ[environment.METRICS_PORT] = str(sink.port)
        fleet.start()
        fleet.work(1)
        assert fleet.totals.sent == 50
        assert fleet.sender_lines("metrics are not served")
