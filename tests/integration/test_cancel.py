"""Cancel in full flight: leased, drained, untouched, killed and frozen ranges, deferrals waiting; exact in the end."""

from __future__ import annotations

import random
import signal
from typing import TYPE_CHECKING

import pytest

from books import check_books, sample
from fleet import Fleet, subscribers
from mailfleet_sender.contract.accounts import RunState
from services import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from sink import Sink

LEASE = {"MAILFLEET_LEASE_SECONDS": "3", "MAILFLEET_MARGIN_SECONDS": "1"}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_cancelled_under_fire_ends_with_exact_books(
    seed: int, database_url: str, redis_url: str, sink: Sink, tmp_path: Path
) -> None:
    seeded = random.Random(seed)
    subscribers(database_url, 9_000)
    with Fleet(database_url, database_url, redis_url, sink, tmp_path, rate="800/s", environ=LEASE) as fleet:
        fleet.range_size = 1_500
        sink.behave({"phase": "rcpt", "share": 0.05, "seed": seed, "reply": "451 4.3.0 try later"})
        fleet.start()
        fleet.tend(4)
        wait_for("one is being drained", lambda: sink.summary().accepted > 150)
        drained, killed, frozen, living = seeded.sample(fleet.senders, 4)
        drained.process.send_signal(signal.SIGTERM)
        moment = seeded.randrange(400, 900)
        wait_for("all are in full flight", lambda: sink.summary().accepted > moment)
        killed.process.kill()
        frozen.process.send_signal(signal.SIGSTOP)
        assert not fleet.runs.close(fleet.run, RunState.CANCELLED)  # a lease is never broken
        now = sample(fleet.ledger_url, fleet.run)
        assert now["cancelled"] >= 3_000  # the two untouched ranges, at once
        assert now["deferred"] > 0
        living.process.send_signal(signal.SIGTERM)

        def closed() -> bool:
            sample(fleet.ledger_url, fleet.run)
            return fleet.runs.close(fleet.run, RunState.CANCELLED)

        wait_for("the run is closed", closed, seconds=60)
        assert {living.process.wait(60), drained.process.wait(60)} <= {0, 75}
        before = check_books(fleet.ledger_url, fleet.run)
        assert before.totals["deferred"] == before.totals["remaining"] == 0
        frozen.process.send_signal(signal.SIGCONT)  # fenced: what it knows for sure comes late
        assert frozen.process.wait(60) == 75
        fleet.runs.absorb_late(fleet.run)
        books = check_books(fleet.ledger_url, fleet.run)
        print(f"seed={seed} before={before.totals} after={books.totals}")
        accepted, audience = fleet.accepted(), fleet.audience()
        assert set(accepted.values()) == {1}
        mailed = {k for k, address in audience.items() if address in accepted}
        assert books.keys("sent") <= mailed <= books.keys("sent") | books.keys("uncertain")
        assert not books.keys("cancelled") & mailed
        row = fleet.runs.get(fleet.run)
        assert row
        assert row.state is RunState.CANCELLED
        assert fleet.open_ranges() == []
