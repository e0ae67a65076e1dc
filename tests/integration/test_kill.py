"""kill -9 on a sender in full flight, at seeded moments; counted by the oracle."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING

import pytest

from books import check_books
from fleet import Fleet, campaign, subscribers
from services import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from sink import Sink

MOMENTS = int(os.environ.get("KILL_MOMENTS", "5"))
"""A taste for `make test`; `make kills` runs 20 for each policy."""
RATE = 1000
FAST = 500 if "KILL_MOMENTS" in os.environ else 100
"""So many accepted a second is full flight; a busy machine must pass `make test` too."""
LEASE = {"MAILFLEET_LEASE_SECONDS": "3", "MAILFLEET_MARGIN_SECONDS": "1"}


def in_the_last_second(fleet: Fleet) -> int:
    """Messages that the oracle accepted in the last second."""
    now = time.time()
    return sum(now - 1 < message.time <= now for message in fleet.sink.accepted())


def in_full_flight(fleet: Fleet, since: float) -> int:
    """The same if it is fast enough to count, and all of it came from the pod that began at `since`; else 0."""
    count = in_the_last_second(fleet)
    return count if count >= FAST and time.time() > since + 1 else 0


@pytest.mark.timeout(900)
@pytest.mark.parametrize("policy", ["Skip", "Resend"])
def test_a_killed_sender_loses_nobody_and_doubts_at_most_a_second(
    policy: str, database_url: str, redis_url: str, sink: Sink, tmp_path: Path
) -> None:
    recipients = 2_200 * MOMENTS + 4_000
    subscribers(database_url, recipients)
    seeded = random.Random(20261124)
    with Fleet(database_url, database_url, redis_url, sink, tmp_path, rate=f"{RATE}/s", environ=LEASE) as fleet:
        fleet.definition = campaign(onUncertain=policy)
        fleet.range_size = recipients
        fleet.start()
        uncertain_before = 0
        for moment in range(MOMENTS):
            fleet.tend(1)
            before = fleet.sink.summary().accepted
            wait_for("it sends", lambda n=before: fleet.sink.summary().accepted > n, seconds=60)
            since = time.time()
            wait_for("it sends fast", lambda t=since: in_full_flight(fleet, t), seconds=60)
            time.sleep(seeded.uniform(0.0, 0.6))  # the seeded moment itself, not a wait for luck
            last_second = wait_for("it is in full flight", lambda t=since: in_full_flight(fleet, t), seconds=60)
            (victim,) = fleet.senders
            victim.process.kill()
            victim.process.wait()
            fleet.tend(1)
            takeovers = moment + 2
            wait_for("it is taken over", lambda n=takeovers: len(fleet.sender_lines("range acquired")) >= n)
            doubted = len(fleet.doubts())
            uncertain, uncertain_before = doubted - uncertain_before, doubted
            print(f"{policy} moment={moment} accepted_last_second={last_second} uncertain={uncertain}")
            assert uncertain <= last_second
        fleet.work(1, seconds=600)
        oracle, totals = fleet.held_against_the_oracle(), fleet.totals
        print(f"{policy}: planned={totals.planned} sent={totals.sent} uncertain={totals.uncertain} {oracle}")
        check_books(fleet.ledger_url, fleet.run)
        assert oracle["lost"] == 0
        if policy == "Skip":
            assert oracle["duplicates"] == 0
            assert totals.uncertain == oracle["doubted"]
        else:
            assert totals.uncertain == 0
            assert oracle["duplicates"] <= oracle["doubted"]
