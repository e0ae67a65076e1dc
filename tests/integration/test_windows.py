"""Windows that the limiter was told ahead, with real sender processes and nobody watching."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import redis

from books import check_books
from fleet import NAME, NAMESPACE, Fleet, subscribers
from mailfleet_sender.limiter import LimiterAdmin
from services import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from sink import Sink

LATEST = timedelta(seconds=2)


@pytest.mark.timeout(300)
def test_senders_stop_when_it_closes_and_go_on_when_it_opens(
    database_url: str, redis_url: str, sink: Sink, tmp_path: Path
) -> None:
    subscribers(database_url, 3_000)
    with (
        Fleet(database_url, database_url, redis_url, sink, tmp_path, rate="500/s") as fleet,
        redis.Redis.from_url(redis_url) as client,
    ):
        fleet.range_size = 1_500
        fleet.start()
        fleet.tend(2)
        wait_for("mail goes out", lambda: sink.summary().accepted > 100)
        closes = datetime.now(UTC) + timedelta(seconds=1)
        opens = closes + timedelta(seconds=6)
        LimiterAdmin(client).set_campaign(
            fleet.relay().account,
            f"{NAMESPACE}/{NAME}",
            open_until=closes,
            reopens=[(opens, opens + timedelta(hours=1))],
        )
        first = list(fleet.senders)
        fleet.work(2)
        # The same two, whichever was done first: they waited, and went on by themselves.
        assert sorted(s.log for s, _ in fleet.ended) == sorted(s.log for s in first)
        assert fleet.runs.complete(fleet.run)
        assert check_books(fleet.ledger_url, fleet.run).totals["sent"] == 3_000
        times = [datetime.fromtimestamp(m.time, UTC) for m in sink.accepted()]
        assert not [t for t in times if closes + LATEST < t < opens]
        assert [t for t in times if t < closes]
        assert [t for t in times if t > opens]
        assert fleet.held_against_the_oracle() == {"lost": 0, "duplicates": 0, "doubted": 0}
