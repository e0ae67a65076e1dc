"""A file of recipients behind a URL, fetched from real servers on loopback; what must not be reached is not."""

from __future__ import annotations

import hashlib
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from certificates import Certificates
from csv_desk import PEOPLE, Desk
from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.contract.environment import Exit
from mailfleet_sender.ledger import migrate, open_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
SHA256 = hashlib.sha256(PEOPLE.encode()).hexdigest()


class Answers(BaseHTTPRequestHandler):
    """What a path is answered with, as its server's `pages` say: status, headers, body."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))  # type: ignore[attr-defined]
        status, headers, body = self.server.pages.get(self.path, (404, {}, b""))  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serving(certificates: Certificates | None = None) -> Iterator[Any]:
    """A server on loopback; `.pages` are its answers, `.asked` what it was asked, `.url` where it is."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        if certificates:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates.chain, certificates.key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        place = f"localhost:{server.server_port}" if certificates else f"127.0.0.1:{server.server_port}"
        server.pages = {"/vip.csv": (200, {}, PEOPLE.encode())}  # type: ignore[attr-defined]
        server.asked = []  # type: ignore[attr-defined]
        server.url = f"{'https' if certificates else 'http'}://{place}"  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def web() -> Iterator[Any]:
    with serving() as server:
        yield server


@pytest.fixture
def desk(database_url: str, tmp_path: Path) -> Iterator[Desk]:
    migrate(database_url)
    ledger = open_ledger(database_url, application_name="test", pool_size=2)
    yield Desk(database_url, ledger, tmp_path)
    ledger.dispose()


def refused(desk: Desk, href: str, sha256: str = SHA256, networks: Any = LOOPBACK) -> tuple[Exit, ReportReason, str]:
    ended, reason, message = desk.refused(desk.campaign(url={"href": href, "sha256": sha256}), networks=networks)
    assert message.startswith("recipients.csv.url: ")
    return ended, reason, message


def test_a_file_is_fetched_and_checked(desk: Desk, web: Any) -> None:
    campaign = desk.campaign(url={"href": f"{web.url}/vip.csv", "sha256": SHA256})
    assert desk.plan(campaign, networks=LOOPBACK) is Exit.DONE
    assert desk.planned() == {None: ["2", "3", "4"]}
    ((path, headers),) = web.asked
    assert (path, headers["Accept-Encoding"]) == ("/vip.csv", "identity")


def test_loopback_is_refused_unless_it_is_allowed(desk: Desk, web: Any) -> None:
    ended, reason, message = refused(desk, f"{web.url}/vip.csv", networks=())
    assert (ended, reason) == (Exit.IMPOSSIBLE, ReportReason.SOURCE_REFUSED)
    assert "recipients.allowedNetworks" in message
    assert web.asked == []


@pytest.mark.parametrize(
    "host", ["localhost", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "169.254.169.254"]
)
def test_another_name_for_it_is_refused_as_well(desk: Desk, host: str) -> None:
    for scheme in ("http", "https"):
        _, reason, _ = refused(desk, f"{scheme}://{host}:9/vip.csv", networks=())
        assert reason is ReportReason.SOURCE_REFUSED


def test_a_redirect_to_what_is_not_allowed_is_refused(desk: Desk, web: Any) -> None:
    web.pages["/old"] = (302, {"Location": "http://169.254.169.254/latest/meta-data"}, b"")
    _, reason, message = refused(desk, f"{web.url}/old")
    assert reason is ReportReason.SOURCE_REFUSED
    assert "169.254.169.254" in message


def test_redirects_are_followed_but_not_for_ever(desk: Desk, web: Any) -> None:
    web.pages["/old"] = (301, {"Location": "/older?x=1"}, b"")
    web.pages["/older?x=1"] = (307, {"Location": f"{web.url}/vip.csv"}, b"")
    web.pages["/round"] = (302, {"Location": "round"}, b"")
    campaign = desk.campaign(url={"href": f"{web.url}/old", "sha256": SHA256})
    assert desk.plan(campaign, networks=LOOPBACK) is Exit.DONE
    _, reason, message = refused(desk, f"{web.url}/round")
    assert reason is ReportReason.SOURCE_REFUSED
    assert "5 redirects" in message


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://user:pass@127.0.0.1/", "http://["]
)
def test_a_redirect_to_something_else_is_refused(desk: Desk, web: Any, location: str) -> None:
    web.pages["/old"] = (302, {"Location": location}, b"")
    _, reason, _ = refused(desk, f"{web.url}/old")
    assert reason is ReportReason.SOURCE_REFUSED


def test_another_file_than_the_checksum_says_is_refused_and_nothing_of_it_stays(desk: Desk, web: Any) -> None:
    ended, reason, message = refused(desk, f"{web.url}/vip.csv", "0" * 64)
    assert (ended, reason) == (Exit.IMPOSSIBLE, ReportReason.SOURCE_REFUSED)
    assert f"SHA-256 is {SHA256}, not what sha256 says" in message


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        ((404, {}, b""), ReportReason.SOURCE_UNAVAILABLE, "127.0.0.1 answers 404"),
        ((206, {}, PEOPLE.encode()), ReportReason.SOURCE_UNAVAILABLE, "answers 206"),
        ((200, {"Content-Length": "1000"}, PEOPLE.encode()), ReportReason.SOURCE_UNAVAILABLE, "broke off"),
        ((200, {"Content-Encoding": "gzip"}, b"x"), ReportReason.SOURCE_REFUSED, "compressed"),
    ],
)
def test_an_answer_that_is_not_the_file_is_said(
    desk: Desk, web: Any, answer: Any, reason: ReportReason, words: str
) -> None:
    web.pages["/vip.csv"] = answer
    _, seen, message = refused(desk, f"{web.url}/vip.csv")
    assert seen is reason
    assert words in message


def test_a_signed_urls_secret_is_in_no_message(desk: Desk, web: Any) -> None:
    _, _, message = refused(desk, f"{web.url}/gone.csv?signature=s3cret")
    assert "s3cret" not in message


def test_nobody_there_may_come_back(desk: Desk) -> None:
    ended, reason, message = refused(desk, "http://127.0.0.1:1/vip.csv")
    assert (ended, reason) == (Exit.INTERRUPTED, ReportReason.SOURCE_UNAVAILABLE)
    assert "Connection refused" in message
    assert "the plan is tried again" in message


def test_with_tls_the_certificate_counts(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates = Certificates.make(tmp_path)
    with serving(certificates) as web:
        _, reason, message = refused(desk, f"{web.url}/vip.csv")
        assert reason is ReportReason.SOURCE_UNAVAILABLE
        assert "no TLS" in message
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
        campaign = desk.campaign(url={"href": f"{web.url}/vip.csv", "sha256": SHA256})
        assert desk.plan(campaign, networks=LOOPBACK) is Exit.DONE
        web.pages["/down"] = (302, {"Location": "http://127.0.0.1/vip.csv"}, b"")
        _, reason, message = refused(desk, f"{web.url}/down")
        assert reason is ReportReason.SOURCE_REFUSED
        assert "from https to another scheme" in message
