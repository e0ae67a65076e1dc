"""Real senders, a real ledger and the oracle: a slow domain beside others, a quota, connections of the whole fleet."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest

from books import check_books
from fleet import NAMESPACE, Fleet, campaign, subscribers
from mailfleet_sender.limiter import LimiterAdmin, open_limiter_admin
from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sink import Sink

ACCOUNT = f"{NAMESPACE}/relay"


@pytest.fixture
def fleet(database_url: str, redis_url: str, sink: Sink, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(database_url, database_url, redis_url, sink, tmp_path, rate="400/s") as fleet:
        yield fleet


def execute(url: str, statement: str) -> None:
    with contextlib.closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)


def limited(fleet: Fleet, rate: str) -> None:
    fleet.relay_changes = {"limits": {"rate": fleet.rate, "domains": [{"name": "gmail.com", "rate": rate}]}}


def gmail(fleet: Fleet, condition: str) -> None:
    execute(fleet.database_url, f"UPDATE subscribers SET email = 'g' || id || '@Gmail.com' WHERE {condition}")


def of_gmail(fleet: Fleet) -> list[float]:
    return sorted(m.time for m in fleet.sink.accepted() if m.recipient.lower().endswith("@gmail.com"))


def held(arrivals: list[float], rate: float) -> bool:
    """Whether they are no more than `rate` allows from first to last, with a burst of 2.

    A busy machine bunches what arrives; single seconds are judged where the clock is ours (test_limiter_domains).
    """
    return len(arrivals) <= rate * (arrivals[-1] - arrivals[0]) + 3


@pytest.mark.parametrize("condition", ["id % 5 < 2", "id <= 1600"])
def test_a_slow_domain_is_held_to_its_rate_and_holds_up_nobody(fleet: Fleet, condition: str) -> None:
    """Also where all of its recipients come first."""
    subscribers(fleet.database_url, 4_000)
    gmail(fleet, condition)
    limited(fleet, "5/s")
    fleet.range_size = 2_000
    fleet.start()
    fleet.tend(2)
    others = [address for address in fleet.audience().values() if not address.lower().endswith("@gmail.com")]
    assert len(others) == 2_400
    wait_for("all others have their mail", lambda: fleet.tend(2) and _accepted_of(fleet, "example.net") == 2_400)
    fleet.work(2)
    totals = fleet.totals
    check_books(fleet.ledger_url, fleet.run)
    assert totals.deferred == 1_600 - len(of_gmail(fleet)) > 0
    assert totals.sent == 2_400 + len(of_gmail(fleet))
    assert held(of_gmail(fleet), 5)
    with contextlib.closing(psycopg2.connect(fleet.ledger_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT outcome, code, attempt FROM delivery WHERE outcome <> 'sent'")
        assert cursor.fetchall() == [("deferred", "DomainLimit", 0)]
    assert set(fleet.accepted().values()) == {1}


def connections_to(port: int) -> int:
    """Established connections of this machine to a port of loopback (proc(5), /proc/net/tcp)."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(fields[2].endswith(f":{port:04X}") and fields[3] == "01" for fields in map(str.split, lines))


def _accepted_of(fleet: Fleet, domain: str) -> int:
    return sum(m.recipient.endswith(f"@{domain}") for m in fleet.sink.accepted())


def test_recipients_of_slow_domains_alone_wait_and_those_deferred_come_in_the_retry_wave(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 60)
    gmail(fleet, "true")
    limited(fleet, "10/s")
    fleet.definition = campaign(retry={"initialDelaySeconds": 1})
    fleet.start()
    fleet.work(1)
    while fleet.totals.deferred:
        wait_for("some of the deferred are due", lambda: fleet.runs.retry_wave(fleet.run, fleet.range_size))
        fleet.work(1)
    assert fleet.totals.sent == 60
    assert held(of_gmail(fleet), 10)
    check_books(fleet.ledger_url, fleet.run)


def test_a_terminated_sender_leaves_those_who_wait_to_its_successor(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 1_000)
    gmail(fleet, "id % 10 = 0")
    limited(fleet, "5/s")
    fleet.start()
    fleet.tend(1)
    wait_for("300 accepted", lambda: fleet.tend(1) and fleet.sink.summary().accepted >= 300)
    fleet.terminate()
    assert not fleet.totals.uncertain
    fleet.work(1)
    check_books(fleet.ledger_url, fleet.run)
    assert fleet.totals.sent + fleet.totals.deferred == 1_000
    assert _accepted_of(fleet, "example.net") == 900


def test_a_quota_is_never_exceeded_and_what_was_not_handed_over_is_given_back(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 600)
    fleet.sink.behave({"phase": "rcpt", "recipient": "^user[1-9]0@", "reply": "550 5.1.1 no such user"})
    fleet.relay_changes = {"limits": {"rate": "400/s", "quota": {"messages": 200}}}
    fleet.start()
    fleet.tend(2)
    with open_limiter_admin(fleet.redis_url) as client:
        admin = LimiterAdmin(client)

        def spent() -> bool:
            fleet.tend(2)
            quota = admin.state(ACCOUNT).quota
            return quota is not None and quota.used == 200 and fleet.sink.summary().accepted >= 200

        wait_for("the quota is used up", spent)
        assert fleet.sink.summary().accepted == 200
        fleet.relay_changes = {"limits": {"rate": "400/s", "quota": {"messages": 100_000}}}
        fleet.limits()
    fleet.work(2)
    assert fleet.totals.sent + fleet.totals.failed == 600
    check_books(fleet.ledger_url, fleet.run)


def test_a_fleet_holds_no_more_connections_than_the_relay_allows(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 2_000)
    fleet.sink.behave({"phase": "dot", "delay": 0.02})
    fleet.relay_changes = {"connections": {"max": 6, "perSender": 10}}
    fleet.range_size = 700
    fleet.start()
    fleet.tend(3)
    most = []

    def ended() -> bool:
        most.append(connections_to(fleet.sink.port))
        return not fleet.tend(3)

    wait_for("every range has ended", ended, seconds=120)
    assert fleet.totals.sent == 2_000
    assert max(most) <= 6 + 3, most


def test_a_sender_holds_no_more_connections_than_the_relay_allows_it(fleet: Fleet) -> None:
    subscribers(fleet.database_url, 150)
    fleet.sink.behave({"phase": "dot", "delay": 0.02})
    fleet.relay_changes = {"connections": {"perSender": 2}}
    fleet.start()
    fleet.tend(1)
    most = []

    def ended() -> bool:
        most.append(connections_to(fleet.sink.port))
        return not fleet.tend(1)

    wait_for("every range has ended", ended, seconds=60)
    assert fleet.totals.sent == 150
    assert 0 < max(most) <= 2, most
