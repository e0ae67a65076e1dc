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
    """Passes connections on to a port of loopback.

    Attributes:
        port: its own.
        delay_seconds: how long each piece of data is held, in either direction.
        drip: whether the server's answers arrive octet by octet, half a millisecond apart.
        refuses: whether new connections are cut at once.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._server = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._server.getsockname()[1]
        self.delay_seconds = 0.0
        self.drip = False
        self.refuses = False
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Lose every connection."""
        for s in self._sockets:
            end(s)
        self._sockets.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                end(client)
                continue
            for s in (client, server):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.refuses:
                end(client)
                end(server)
                continue
            self._sockets += [client, server]
            threading.Thread(target=self.upstream, args=(client, server), daemon=True).start()
            threading.Thread(target=self._downstream, args=(server, client), daemon=True).start()

    def upstream(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what the client says, until either side ends."""
        with contextlib.suppress(OSError):
            while data := client.recv(CHUNK):
                self._wait()
                server.sendall(data)
        end(client)
        end(server)

    def _downstream(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(CHUNK):
                self._wait()
                for piece in (data[i : i + 1] for i in range(len(data))) if self.drip else (data,):
                    client.sendall(piece)
                    if self.drip:
                        time.sleep(0.0005)
        end(client)

    def _wait(self) -> None:
        if self.delay_seconds:
            time.sleep(self.delay_seconds)


Fault = Literal["before", "after", "hold", "pause"]


class Proxy(TcpProxy):
    """A proxy before Postgres that can spoil the next COMMIT.

    before: the connection is lost, COMMIT never arrives. after: COMMIT arrives, its answer is lost.
    hold: the client's connection is lost at once, COMMIT arrives 0.7 s later. pause: COMMIT arrives when
    `go` is called, and nothing is lost. `skip` COMMITs go unharmed before.

    Attributes:
        url: of the database behind it.
        fault: what to do to the next COMMIT; None: nothing.
        at: only COMMITs of transactions in whose text this is found are meant.
        spoiled: how many were.
        paused: set while a COMMIT waits for `go`.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        super().__init__(parts.port or 5432, parts.hostname or "127.0.0.1")
        self.url = urlunsplit(parts._replace(netloc=f"postgres@127.0.0.1:{self.port}"))
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
        with contextlib.suppress(OSError):
            while data := client.recv(CHUNK):
                self._wait()
                said += data
                if b"COMMIT\0" in data:
                    if self.fault and self._is_meant(said) and self._spoil(data, client, server):
                        break
                    said.clear()
                server.sendall(data)
        end(client)
        end(server)

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
            end(client)
            if fault == "hold":
                time.sleep(0.7)
            server.sendall(data)
            server.recv(1)  # only when the server has done it
        return True


def end(s: socket.socket) -> None:
    """Cut a connection."""
    with contextlib.suppress(OSError):
        s.shutdown(socket.SHUT_RDWR)
    s.close()
