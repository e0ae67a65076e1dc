"""A ledger restored to an older state under a sender: it stops for good, and says why."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

from fleet import Fleet, subscribers
from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.contract.environment import Exit
from services import PostgresServer, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from sink import Sink


def copy(server: PostgresServer, source: str, target: str) -> None:
    """Copy the server's folder of data, or put a copy in its place; it does not run."""
    shutil.rmtree(server.folder / target, ignore_errors=True)
    shutil.copytree(server.folder / source, server.folder / target, symlinks=True)
    for path in [server.folder / target, *(server.folder / target).rglob("*")]:
        shutil.chown(path, (server.folder / source).owner(), (server.folder / source).group())


def test_a_sender_whose_ledger_was_restored_sends_nothing_more(redis_url: str, sink: Sink, tmp_path: Path) -> None:
    with PostgresServer(tmp_path) as server:
        url = server.database()
        subscribers(url, 30_000)
        with Fleet(url, url, redis_url, sink, tmp_path) as fleet:
            fleet.range_size = 30_000
            fleet.start()
            fleet.tend(1)
            wait_for("it sends", lambda: sink.summary().accepted > 300)
            fleet.terminate()
            server.kill()
            copy(server, "data", "older")
            server.start()
            before = sink.summary().accepted
            fleet.tend(1)
            wait_for("its successor sends", lambda: sink.summary().accepted > before + 500)
            server.kill()
            (sender,) = fleet.senders
            wait_for("the sender has noticed", lambda: fleet.sender_lines("ledger: trying again"))
            copy(server, "older", "data")
            restored = time.time()
            server.start()
            assert sender.process.wait(60) == Exit.IMPOSSIBLE
            fleet.senders.clear()
            assert fleet.sender_lines("the ledger lost what it had committed: nothing is sent")
            assert [r.reason for r in fleet.runs.reports([fleet.run])] == [ReportReason.LEDGER_REWOUND]
            assert not [m for m in sink.accepted() if m.time > restored]
            assert fleet.totals.sent < sink.summary().accepted


def test_a_ledger_that_does_not_know_the_run_is_rewound_too(
    postgres: PostgresServer, redis_url: str, sink: Sink, tmp_path: Path
) -> None:
    url, other = postgres.database(), postgres.database()
    subscribers(url, 1_000)
    with Fleet(url, url, redis_url, sink, tmp_path) as fleet, Fleet(other, url, redis_url, sink, tmp_path) as anew:
        fleet.start()
        anew.run = fleet.run + 1_000
        for knows_relay in (False, True):
            if knows_relay:
                anew.limits()
            assert anew.spawn(1, 0).process.wait(60) == Exit.IMPOSSIBLE
        assert sink.summary().accepted == 0
