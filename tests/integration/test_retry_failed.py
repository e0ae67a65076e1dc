"""retryFailed with real sender processes, the oracle beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from books import check_books, sample
from fleet import Fleet, campaign, subscribers
from mailfleet_sender.contract.accounts import RunState
from services import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from sink import Sink

LEASE = {"MAILFLEET_LEASE_SECONDS": "3", "MAILFLEET_MARGIN_SECONDS": "1"}
POLICY = "^user[0-9]*7@"
"""300 of 3,000: refused for what we said, which somebody mends."""


def done(fleet: Fleet) -> bool:
    """One look: the sum holds; whether every range has ended."""
    sample(fleet.ledger_url, fleet.run)
    return not fleet.tend(3)


@pytest.mark.timeout(600)
def test_those_that_failed_are_sent_exactly_once_more_though_a_sender_is_killed(
    database_url: str, redis_url: str, sink: Sink, tmp_path: Path
) -> None:
    subscribers(database_url, 3_000)
    with Fleet(database_url, database_url, redis_url, sink, tmp_path, rate="2000/s", environ=LEASE) as fleet:
        fleet.definition = campaign(retry={"initialDelaySeconds": 1})
        sink.behave(
            {"phase": "dot", "recipient": POLICY, "reply": "554 5.7.1 refused by policy"},
            {"phase": "rcpt", "recipient": "^user[0-9]*3@", "reply": "550 5.1.1 no such user"},
            {"phase": "dot", "recipient": "^user10[01]0@", "then": "reset", "accept": True, "count": 2},
        )
        fleet.start()
        wait_for("every range has ended", lambda: done(fleet), seconds=90)
        assert fleet.runs.complete(fleet.run)
        before = fleet.accepted()
        first = check_books(fleet.ledger_url, fleet.run)
        assert {k: v for k, v in first.totals.items() if v} == {
            "planned": 3_000, "sent": 2_398, "failed": 600, "uncertain": 2,
        }  # fmt: skip
        retried = {k for k in first.keys("failed") if k.endswith("7")} | first.keys("uncertain")

        sink.behave({"phase": "rcpt", "recipient": "^user77@", "reply": "451 4.7.1 later", "count": 1})
        assert fleet.runs.retry_failed(fleet.run, 1, ["5.7.1", "Uncertain"], 500) == 2
        sample(fleet.ledger_url, fleet.run)
        fleet.limits()
        fleet.tend(3)
        wait_for("the retry sends", lambda: sink.summary().accepted > sum(before.values()) + 20)
        fleet.senders[0].process.kill()
        wait_for("every range has ended", lambda: done(fleet), seconds=60)
        while fleet.totals.deferred:
            wait_for("the deferred one is due", lambda: fleet.runs.retry_wave(fleet.run, 500))
            wait_for("every range has ended", lambda: done(fleet), seconds=60)
        assert fleet.runs.complete(fleet.run)
        after = check_books(fleet.ledger_url, fleet.run)
        assert after.totals["failed"] == 300
        assert after.totals["sent"] + after.totals["uncertain"] == 2_700
        audience, accepted = fleet.audience(), fleet.accepted()
        again = {a: n - before.get(a, 0) for a, n in accepted.items() if n != before.get(a, 0)}
        assert set(again.values()) == {1}
        retried_addresses = {audience[k] for k in retried}
        assert set(again) <= retried_addresses
        assert {k for k in retried if audience[k] not in again} <= after.keys("uncertain")
        row = fleet.runs.get(fleet.run)
        assert row
        assert (row.state, row.retry_generation) == (RunState.COMPLETE, 1)
        assert fleet.runs.retry_failed(fleet.run, 1, ["5.1.1"], 500) is None
