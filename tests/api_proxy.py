"""A real proxy between an operator and the API server: HTTP on this side, the administrator's TLS on the other.

It answers in the API server's place, or loses its answers, or is away; watches stream through it.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import yaml

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

WRITES = frozenset({"POST", "PATCH", "DELETE", "PUT"})
LOST = 0
"""In place of a status: the request is passed on and its answer lost."""
HOPS = frozenset({"connection", "transfer-encoding", "content-length", "host"})


class ApiProxy:
    """Use it as a context manager.

    Attributes:
        kubeconfig: leads to it.
        fault: called with method and path of each request: a status to answer with, `LOST`, or None.
        away: whether nothing is let through; set it by `cut`.
        told: (method, status) of all that it answered itself.
    """

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._target = urlsplit(cluster["server"])
        self._tls = _context(cluster, user, folder)
        self.fault: Callable[[str, str], int | None] = lambda _method, _path: None
        self.away = False
        self.told: list[tuple[str, int]] = []
        self._sockets: set[socket.socket] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.kubeconfig = folder / "proxied.kubeconfig"
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "proxied", "cluster": {"server": url}}],
                    "users": [{"name": "nobody", "user": {}}],
                    "contexts": [{"name": "proxied", "context": {"cluster": "proxied", "user": "nobody"}}],
                    "current-context": "proxied",
                }
            )
        )

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._server.shutdown()
        self._server.server_close()

    def cut(self) -> None:
        """The API server is away: every connection is lost, none is taken."""
        self.away = True
        for s in list(self._sockets):
            with contextlib.suppress(OSError):
                s.shutdown(2)

    def mend(self) -> None:
        """It is back, and well."""
        self.away, self.fault = False, lambda _method, _path: None

    def connect(self) -> http.client.HTTPSConnection:
        assert self._target.hostname
        return http.client.HTTPSConnection(self._target.hostname, self._target.port, context=self._tls, timeout=400)


def _context(cluster: dict[str, Any], user: dict[str, Any], folder: Path) -> ssl.SSLContext:
    """The administrator's, from a kubeconfig that holds all it needs."""

    def file(name: str, data: str) -> str:
        (folder / name).write_bytes(base64.b64decode(data))
        return str(folder / name)

    context = ssl.create_default_context(cafile=file("ca.pem", cluster["certificate-authority-data"]))
    certificate, key = (user[f"client-{part}-data"] for part in ("certificate", "key"))
    context.load_cert_chain(file("client.pem", certificate), file("client.key", key))
    return context


def _handler(proxy: ApiProxy) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - a class that knows its proxy
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            proxy._sockets.add(self.connection)

        def finish(self) -> None:
            proxy._sockets.discard(self.connection)
            with contextlib.suppress(OSError):
                super().finish()

        def log_message(self, *_: object) -> None:
            """It says nothing."""

        def _pass(self) -> None:
            self.close_connection = True
            if proxy.away:
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.fault(self.command, self.path)
            if fault:
                proxy.told.append((self.command, fault))
                self._answer(fault)
                return
            upstream = proxy.connect()
            headers = {k: v for k, v in self.headers.items() if k.lower() not in HOPS}
            with contextlib.closing(upstream), contextlib.suppress(OSError, http.client.HTTPException):
                upstream.request(self.command, self.path, body or None, headers)
                answer = upstream.getresponse()
                if fault == LOST:
                    answer.read()
                    proxy.told.append((self.command, LOST))
                    return
                self._stream(answer)

        def _stream(self, answer: http.client.HTTPResponse) -> None:
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOPS:
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            while data := answer.read1(1 << 16):
                self.wfile.write(data)
                self.wfile.flush()

        def _answer(self, status: int) -> None:
            words = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": "the proxy"}
            data = json.dumps(words).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status == 429:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _pass  # noqa: N815

    return Handler
