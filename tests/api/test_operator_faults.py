"""An API server that refuses, loses its answers or is away, and a second operator by mistake: a campaign ends as if
nothing had been."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

import custom_resources
from api_proxy import LOST, WRITES, ApiProxy
from operator_hand import Hand, OperatorProcess
from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kube import ControlPlane
    from services import RedisServer

ODD = (409, 429, 500, 503, LOST)


class Proxied(OperatorProcess):
    """An operator that reaches the API server by way of a proxy."""

    def __init__(self, proxy: ApiProxy, plane: ControlPlane, folder: Path, **settings: Any) -> None:
        super().__init__(plane, folder, **settings)
        self._environment["KUBECONFIG"] = str(proxy.kubeconfig)


@pytest.fixture
def proxy(api: ControlPlane, tmp_path: Path) -> Iterator[ApiProxy]:
    with ApiProxy(api.kubeconfig, tmp_path) as found:
        yield found


@pytest.fixture
def proxied(
    proxy: ApiProxy, api: ControlPlane, ledger_url: str, redis_server: RedisServer, tmp_path: Path
) -> Iterator[OperatorProcess]:
    with Proxied(proxy, api, tmp_path, ledger_url=ledger_url, redis_url=redis_server.url) as process:
        yield process
        text = process.log.read_text()
        assert process.lives, text[-6000:]
        assert "a look at this key failed" not in text, text[-6000:]


@pytest.fixture
def hand(api: ControlPlane, namespace: str, ledger_url: str, database_url: str) -> Hand:
    return Hand(api, namespace, ledger_url, database_url)


def begin(hand: Hand) -> None:
    body = custom_resources.campaign("autumn")
    body["spec"]["rangeSize"] = 500
    hand.people(2000)
    hand.apply(custom_resources.relay("ses"), body)


def a_send_job(hand: Hand) -> dict[str, Any]:
    return wait_for("a send Job", lambda: (hand.jobs("sender") or [None])[0], seconds=60, interval=0.2)


def ends_right(hand: Hand) -> None:
    hand.wait_for_reason("autumn", "Complete", "Complete", seconds=60)
    assert hand.status("autumn")["recipients"]["sent"] == 2000
    assert len(hand.jobs("planner")) == len(hand.jobs("sender")) == 1
    wait_for("the relay has a status", lambda: hand.get("emailrelay", "ses").get("status"), seconds=60, interval=0.3)


def every_other(proxy: ApiProxy) -> Callable[[str, str], int | None]:
    """Writes are answered in turn: as they should be, and with each of `ODD`."""
    turn = itertools.cycle([None, *(x for odd in ODD for x in (odd, None))])
    return lambda method, _path: next(turn) if method in WRITES else None


def test_every_other_write_goes_wrong(hand: Hand, proxy: ApiProxy, proxied: OperatorProcess) -> None:
    proxy.fault = every_other(proxy)
    begin(hand)
    assert hand.plan() == 0
    a_send_job(hand)
    hand.send_all("autumn")
    wait_for("each kind of answer", lambda: {s for _, s in proxy.told} >= set(ODD), seconds=60, interval=0.2)
    proxy.mend()
    ends_right(hand)


def test_the_api_server_is_away_for_a_while(hand: Hand, proxy: ApiProxy, proxied: OperatorProcess) -> None:
    begin(hand)
    assert hand.plan() == 0
    a_send_job(hand)
    proxy.cut()
    hand.send_all("autumn")
    wait_for("the operator notices", lambda: "does not answer" in proxied.log.read_text(), seconds=60, interval=0.2)
    proxy.mend()
    ends_right(hand)


def test_two_operators_by_mistake_do_what_one_does(
    hand: Hand, api: ControlPlane, ledger_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    one, two = (OperatorProcess(api, f, ledger_url=ledger_url, redis_url=redis_server.url) for f in folders)
    with one, two:
        begin(hand)
        assert hand.plan() == 0
        job = a_send_job(hand)
        hand.patch("autumn", {"suspend": True})
        wait_for("the Job is suspended", lambda: hand.jobs("sender")[0]["spec"]["suspend"], interval=0.2)
        hand.patch("autumn", {"suspend": False})
        wait_for("the Job goes on", lambda: not hand.jobs("sender")[0]["spec"]["suspend"], interval=0.2)
        hand.send_all("autumn")
        ends_right(hand)
        assert hand.jobs("sender")[0]["metadata"]["uid"] == job["metadata"]["uid"]
        for process in (one, two):
            assert process.lives
            assert "Traceback" not in process.log.read_text()
