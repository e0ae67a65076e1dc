"""A recipient whose mail kills the sender, under Resend: passed after one re-send, so it is at most two mails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from books import check_books
from fleet import Fleet, campaign, subscribers
from services import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from sink import Sink

LEASE = {"MAILFLEET_LEASE_SECONDS": "3", "MAILFLEET_MARGIN_SECONDS": "1"}
POISON = "user700@example.net"


class Killer:
    """kill -9 to whoever is sending, each time when the oracle has taken the poisoned mail."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.kills = fleet, 0

    def look(self) -> bool:
        """One look; whether the fleet is done."""
        if self.fleet.accepted().get(POISON, 0) > self.kills:
            for sender in self.fleet.senders:
                sender.process.kill()
                sender.process.wait()
            self.kills += 1
        return not self.fleet.tend(1)


@pytest.mark.timeout(600)
def test_a_row_that_kills_every_sender_is_passed_after_one_resend(
    database_url: str, redis_url: str, sink: Sink, tmp_path: Path
) -> None:
    subscribers(database_url, 1_500)
    with Fleet(database_url, database_url, redis_url, sink, tmp_path, rate="1000/s", environ=LEASE) as fleet:
        fleet.definition, fleet.range_size = campaign(onUncertain="Resend"), 1_500
        # The mail is taken and its reply never comes, so the outcome cannot be recorded before the kill.
        sink.behave({"phase": "dot", "recipient": f"^{POISON}", "then": "stall", "accept": True})
        fleet.start()
        killer = Killer(fleet)
        wait_for("the range has ended", killer.look, seconds=120)
        books = check_books(fleet.ledger_url, fleet.run)
        accepted = fleet.accepted()
        print(f"kills={killer.kills} poison={accepted[POISON]} {fleet.held_against_the_oracle()}")
        assert (killer.kills, accepted[POISON]) == (2, 2)
        assert books.keys("uncertain") == {"700"}
        assert (books.totals["sent"], books.totals["uncertain"]) == (1_499, 1)
        assert max(accepted.values()) == 2
        oracle = fleet.held_against_the_oracle()
        assert oracle["lost"] == 0
        assert oracle["duplicates"] <= oracle["doubted"]
