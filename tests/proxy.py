"""TCP proxies that do to connections what networks do: cut, delay, drip; and spoil a COMMIT of Postgres."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    import re

CHUNK = 1 << 16


class TcpProxy:
    """Passes connections on to a server.

    Attributes:
        url: of the server, by way of this proxy.
        delay_seconds: how long each piece of data is held, in either direction.
        drip: whether the server's answers arrive octet by octet, half a millisecond apart.
        refuses: whether new connections are cut at once.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 0)
        self._server = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.url = self.through(url)
        self.delay_seconds = 0.0
        self.drip = False
        self.refuses = False
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def through(self, url: str) -> str:
        """A URL of the same server by way of this proxy."""
        parts = urlsplit(url)
        user = f"{parts.username}@" if parts.username else ""
        return urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{self._server.getsockname()[1]}"))

    def cut(self) -> None:
        """Lose every connection."""
        for s in list(self._sockets):
            self.end(s)

    def close(self) -> None:
        """No more connections."""
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for s in (client, server):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets |= {client, server}
            if self.refuses:
                self.end(client, server)
                continue
            threading.Thread(target=self._upstream, args=(client, server), daemon=True).start()
            threading.Thread(target=self._downstream, args=(server, client), daemon=True).start()

    def _upstream(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self.upstream(client, server)
        self.end(client, server)

    def upstream(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what the client says, until either side ends."""
        while data := client.recv(CHUNK):
            self.hold()
            server.sendall(data)

    def _downstream(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(CHUNK):
                self.hold()
                for piece in (data[i : i + 1] for i in range(len(data))) if self.drip else (data,):
                    client.sendall(piece)
                    if self.drip:
                        time.sleep(0.0005)
        self.end(client, server)

    def hold(self) -> None:
        """The delay, which is the fault itself."""
        if self.delay_seconds:
            time.sleep(self.delay_seconds)

    def end(self, *sockets: socket.socket) -> None:
        """Cut these connections."""
        for s in sockets:
            self._sockets.discard(s)
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()


Fault = Literal["before", "after", "hold", "pause"]


class Proxy(TcpProxy):
    """A proxy before Postgres that can spoil the next COMMIT.

    before: the connection is lost, COMMIT never arrives. after: COMMIT arrives, its answer is lost.
    hold: the client's connection is lost at once, COMMIT arrives 0.7 s later. pause: COMMIT arrives when
    `go` is called, and nothing is lost. `skip` COMMITs go unharmed before.

    Attributes:
        fault: what to do to the next COMMIT; None: nothing.
        at: only COMMITs of transactions in whose text this is found are meant.
        spoiled: how many were.
        paused: set while a COMMIT waits for `go`.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.fault: Fault | None = None
        self.at: re.Pattern[bytes] | None = None
        self.skip = 0
        self.spoiled = 0
        self.paused = threading.Event()
        self._go = threading.Event()

    def __exit__(self, *_: object) -> None:
        self._go.set()
        super().__exit__()

    def go(self) -> None:
        """Let a paused COMMIT through."""
        self._go.set()

    def upstream(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what the client says; a COMMIT that is meant is spoiled."""
        said = bytearray()
        while data := client.recv(CHUNK):
            self.hold()
            said += data
            if b"COMMIT\0" in data:
                if self.fault and self._is_meant(said) and self._spoil(data, client, server):
                    return
                said.clear()
            server.sendall(data)

    def _is_meant(self, said: bytearray) -> bool:
        if self.at and not self.at.search(said):
            return False
        self.skip -= 1
        return self.skip < 0

    def _spoil(self, data: bytes, client: socket.socket, server: socket.socket) -> bool:
        """Do it; whether the connection is lost."""
        fault, self.fault = self.fault, None
        self.spoiled += 1
        if fault == "pause":
            self.paused.set()
            self._go.wait(60)
            return False
        if fault != "before":
            self.end(client)
            if fault == "hold":
                time.sleep(0.7)
            server.sendall(data)
            server.recv(1)  # only when the server has done it
        return True
