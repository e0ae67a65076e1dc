"""Canary steps, the brake and refusals of the sender, with real planners, senders, Redis and an oracle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from books import check_books
from fleet import NAME, NAMESPACE, Fleet, campaign, subscribers
from mailfleet_sender.limiter import Brake, LimiterAdmin
from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sink import Sink

BRAKE = Brake(max_failed_percent=10, minimum_sample=100)
SOME_FAIL = {"phase": "rcpt", "recipient": "^user[0-9]*[0-2]@", "reply": "550 5.1.1 no such user"}
ALL_REFUSED = {"phase": "rcpt", "reply": "554 5.7.1 your mail is not welcome here"}


@pytest.fixture
def fleet(database_url: str, redis_url: str, sink: Sink, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(database_url, database_url, redis_url, sink, tmp_path) as fleet:
        yield fleet


def send(fleet: Fleet, wave: int) -> None:
    """Real senders for all ranges of one wave."""
    at_work = [fleet.spawn(wave, index) for number, index in fleet.open_ranges() if number == wave]
    assert [sender.process.wait(60) for sender in at_work] == [0] * len(at_work)


@pytest.mark.timeout(200)
def test_each_step_is_mailed_alone_and_is_spread_evenly_over_the_audience(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 2_000)
    fleet.definition = campaign(canary={"steps": [{"recipients": 100}, {"percent": 10}]})
    fleet.start()
    mailed: set[str] = set()
    for wave, size in ((1, 100), (2, 200), (3, 1_700)):
        send(fleet, wave)
        now = set(fleet.accepted()) - mailed
        mailed |= now
        assert len(now) == size
        ids = sorted(int(address.removeprefix("user").split("@")[0]) for address in now)
        for hundred in range(0, 2_000, 100):  # each stretch of the audience has its share
            assert abs(sum(hundred < i <= hundred + 100 for i in ids) - size / 20) <= 3
        assert fleet.totals.remaining == 2_000 - len(mailed)
        fleet.runs.end_step(fleet.run, wave)
        fleet.runs.pass_step(fleet.run, wave)
    assert fleet.runs.complete(fleet.run)
    assert check_books(fleet.ledger_url, fleet.run).totals["sent"] == 2_000
    assert fleet.held_against_the_oracle() == {"lost": 0, "duplicates": 0, "doubted": 0}


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("brake", "refusal", "least"),
    [pytest.param(BRAKE, SOME_FAIL, 20, id="brake"), pytest.param(None, ALL_REFUSED, 20, id="refused")],
)
def test_senders_stop_by_themselves_when_the_brake_closes_and_go_on_when_it_is_released(
    fleet: Fleet, brake: Brake | None, refusal: dict[str, str], least: int
) -> None:
    subscribers(fleet.database_url, 1_400)
    fleet.rate = "150/s"
    fleet.sink.behave(refusal)
    fleet.start()
    account, name = fleet.relay().account, f"{NAMESPACE}/{NAME}"
    with redis.Redis.from_url(fleet.redis_url) as client:
        admin = LimiterAdmin(client)
        admin.set_campaign(account, name, brake=brake)
        fleet.tend(2)

        def closed() -> bool:
            use = admin.state(account).campaigns.get(name)
            return bool(use and use.braked_since)

        wait_for("the brake closes", closed)
        # What was permitted runs off; senders live on and ask in vain.
        assert fleet.terminate() == [75, 75]
        totals = fleet.totals
        assert least <= totals.failed
        assert totals.sent + totals.failed <= 100 + 4 * 150
        assert totals.remaining == 1_400 - totals.sent - totals.failed
        fleet.sink.behave()
        admin.release_brake(account, name)
    fleet.rate = "2000/s"
    fleet.limits()
    fleet.work(2)
    assert fleet.runs.complete(fleet.run)
    assert check_books(fleet.ledger_url, fleet.run).totals["sent"] == 1_400 - totals.failed
    assert fleet.held_against_the_oracle() == {"lost": totals.failed, "duplicates": 0, "doubted": 0}
