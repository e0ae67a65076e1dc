"""A proxy that knows enough of Postgres' protocol to strike at a certain COMMIT.

Message formats: https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import contextlib
import re
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proxy import CHUNK, TcpProxy
from services import wait_for

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

STARTUP = 196_608
"""Protocol 3.0; other first words are SSLRequest and CancelRequest."""
STEPS = ("claim", "record", "takeover", "drain", "close", "pages")
"""Transactions that can be told apart by their statements."""
HOW = ("before", "after", "hold", "pause")
HELD_SECONDS = 0.5

_MARKS = (
    ("drain", re.compile(r"returned = returned \+ open")),
    ("close", re.compile(r"state = 'Closed', cancelled")),
    ("takeover", re.compile(r"SET epoch = epoch \+ 1")),
    ("pages", re.compile(r"COPY page ")),
    ("record", re.compile(r"COPY delivery")),
    ("claim", re.compile(r"UPDATE range SET seq = seq \+ 1")),
)


def step_of(statements: str) -> str:
    """Which transaction of LEDGER section 4 these statements are."""
    return next((name for name, mark in _MARKS if mark.search(statements)), "other")


@dataclass(eq=False)
class Strike:
    """What to do to the next COMMITs of a step.

    before: the connection is lost, COMMIT never arrives. after: COMMIT arrives, its answer is lost. hold: the client's
    connection is lost at once, COMMIT arrives half a second later. pause: `meanwhile` is called with the client's
    application name, and COMMIT arrives when `go` is set (never, if it is `lost` then).
    """

    step: str
    how: str
    count: int = 1
    meanwhile: Callable[[str], None] | None = None
    go: threading.Event = field(default_factory=threading.Event)
    hits: int = 0
    lost: bool = False


class PostgresProxy(TcpProxy):
    """A proxy before Postgres, with strikes."""

    def __init__(self, url: str) -> None:
        self._strikes: list[Strike] = []
        self._lock = threading.Lock()
        super().__init__(url)

    def strike(self, strike: Strike) -> Strike:
        """Arm; see `Strike`. Several may be armed at once."""
        with self._lock:
            self._strikes.append(strike)
        return strike

    def disarm(self, *strikes: Strike) -> None:
        """These (none: all) strike no more; what they paused goes on."""
        with self._lock:
            over = list(strikes) or self._strikes
            self._strikes = [s for s in self._strikes if s not in over]
        for strike in over:
            strike.go.set()

    def struck(self, strike: Strike, *, seconds: float = 20) -> None:
        """Wait until a strike has hit as often as it was to.

        Raises:
            TimeoutError: no such COMMIT came by.
        """
        wait_for(f"{strike.count} COMMITs of {strike.step}", lambda: strike.hits >= strike.count, seconds=seconds)

    def _due(self, statements: str) -> Strike | None:
        step = step_of(statements)
        with self._lock:
            for strike in self._strikes:
                if strike.step == step and strike.hits < strike.count:
                    strike.hits += 1
                    return strike
        return None

    def upstream(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what the client says; a COMMIT that is meant is struck."""
        name = self._startup(client, server)
        statements, waiting = "", b""
        while name is not None and (data := client.recv(CHUNK)):
            self.hold()
            waiting += data
            end = 0
            while len(waiting) - end >= 5 and len(waiting) - end > (
                size := struct.unpack_from("!I", waiting, end + 1)[0]
            ):
                message = waiting[end : end + 1 + size]
                end += 1 + size
                strike = None
                if message[:1] == b"Q":
                    sql = message[5:-1].decode("utf-8", "replace")
                    statements = sql if sql.startswith("BEGIN") else f"{statements}\n{sql}"
                    strike = self._due(statements) if sql.strip() == "COMMIT" else None
                if strike and not self._hit(strike, name, client, server, message):
                    return
                if not strike:
                    server.sendall(message)
            waiting = waiting[end:]

    def _startup(self, client: socket.socket, server: socket.socket) -> str | None:
        """Pass the untyped first messages on; the application's name."""
        while True:
            head = _exactly(client, 8)
            if head is None:
                return None
            size, word = struct.unpack("!II", head)
            rest = _exactly(client, size - 8) if size > 8 else b""
            if rest is None:
                return None
            server.sendall(head + rest)
            if word == STARTUP:
                words = rest.split(b"\0")
                pairs = dict(zip(words[::2], words[1::2], strict=False))
                return pairs.get(b"application_name", b"").decode()

    def _hit(self, strike: Strike, name: str, client: socket.socket, server: socket.socket, message: bytes) -> bool:
        """Do it. False: the connection is over."""
        if strike.how == "pause":
            if strike.meanwhile:
                strike.meanwhile(name)
            strike.go.wait(60)
            if not strike.lost:
                server.sendall(message)
            return not strike.lost
        if strike.how != "before":
            self.end(client)
            if strike.how == "hold":
                time.sleep(HELD_SECONDS)  # the network's delay, not a wait for luck
            server.sendall(message)
            server.settimeout(5)
            with contextlib.suppress(OSError):  # when the server has done it, it answers (to this thread or the other)
                server.recv(1)
        return False


def _exactly(s: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        more = s.recv(count - len(data))
        if not more:
            return None
        data += more
    return data
