"""The installation that all end-to-end tests share: one operator, one Postgres, one Redis, one sink."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2

from mailfleet_demo import installation
from mailfleet_demo.errors import CommandError
from mailfleet_demo.why import explain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailfleet_demo.kubectl import Kubectl

SENDER_SECRET = "mailfleet"


@dataclass
class Oracle:
    """The sink, read through its HTTP side: what was accepted, by the domain of the address."""

    url: str
    _lines: list[dict[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def accepted(self, domain: str) -> list[dict[str, Any]]:
        """The log entries of this domain's recipients, in order."""
        with self._lock:
            self._lines += map(json.loads, self._request(f"/accepted?skip={len(self._lines)}").splitlines())
            return [e for e in self._lines if e["recipient"].endswith(f"@{domain}")]

    def newest(self, recipient: str) -> bytes:
        """The last message to this address, as it came, of those that the sink keeps."""
        found = json.loads(self._request(f"/messages?recipient={recipient}"))
        return base64.b64decode(found[-1]["body"])

    def behave(self, *rules: dict[str, Any]) -> None:
        """Replace the sink's rules; none: accept everything."""
        self._request("/behaviour", list(rules))

    def _request(self, path: str, body: object = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=30) as answer:
            found: bytes = answer.read()
            return found


@dataclass
class House:
    """The installation.

    Attributes:
        kubectl: in the namespace of the installation.
        ledger_url, shop_url: Postgres as the tests reach it.
        shop_inside: the shop's database as pods reach it.
        sender_secret: what the Secret of a campaign's namespace holds.
    """

    kubectl: Kubectl
    oracle: Oracle
    ledger_url: str
    shop_url: str
    shop_inside: str
    sender_secret: dict[str, str]

    def operator_pod(self) -> dict[str, Any]:
        """The operator's pod that is not on its way out; empty if there is none."""
        pods = self.kubectl.json("get", "pods", "--selector", "app.kubernetes.io/component=operator")["items"]
        return next((p for p in pods if "deletionTimestamp" not in p["metadata"]), {})


@contextlib.contextmanager
def house() -> Iterator[House]:
    """Install it, after removing what was there; afterwards it stays, for whoever wants to look."""
    kubectl = installation.kubectl
    installation.clean()
    try:
        installation.install()
    except CommandError as error:
        raise RuntimeError(f"{error}\n{explain(kubectl, 'none')}") from error
    urls = secret(kubectl, installation.OPERATOR)
    shop = secret(kubectl, "shop-db")["url"]
    with (
        kubectl.forward("service/postgres", 5432) as postgres,
        kubectl.forward("service/sink", 8025) as control,
    ):
        yield House(
            kubectl,
            Oracle(f"http://127.0.0.1:{control}"),
            _at(urls["ledger-url"], postgres),
            _at(shop, postgres),
            shop,
            urls,
        )


def secret(kubectl: Kubectl, name: str) -> dict[str, str]:
    """A Secret's content as text."""
    data = kubectl.json("get", "secret", name)["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def query(url: str, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Run one statement on its own connection; its rows, if it has any."""
    with (
        contextlib.closing(psycopg2.connect(url, connect_timeout=10)) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(sql, values or None)
        return cursor.fetchall() if cursor.description else []


def kill_container(pod: dict[str, Any]) -> int:
    """kill -9 of every process of a pod's containers, from outside: PID 1 of a container is deaf to its own signals.

    The node runs on this machine (the local cluster, and kind), so its processes are found by the pod's uid in the
    names of their control groups. Needs root.

    Returns:
        how many processes were killed.
    """
    uid = pod["metadata"]["uid"]
    killed = 0
    for group in Path("/proc").glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            text = group.read_text()
            command = (group.parent / "cmdline").read_bytes()
            if (uid in text or uid.replace("-", "_") in text) and b"pause" not in command:
                os.kill(int(group.parent.name), 9)
                killed += 1
    return killed


def holds_for(seconds: float, probe: Any) -> bool:
    """Whether something stays true for a while: the watching is the test, not a sleep for luck."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not probe():
            return False
        time.sleep(0.2)
    return True


def _at(url: str, port: int) -> str:
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{port}" if login else f"127.0.0.1:{port}"))
