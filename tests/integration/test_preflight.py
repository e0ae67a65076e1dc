"""The verb `preflight` against real servers: what they offer is told, what is wrong is named with the remedy."""

from __future__ import annotations

import gc
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from aiosmtpd_server import Aiosmtpd
from certificates import Certificates
from exim import Exim
from mailfleet_sender import last_words, preflighting
from mailfleet_sender.contract import environment
from mailfleet_sender.contract.environment import Exit
from mailfleet_sender.contract.preflight import Preflight, RelayFault
from mailfleet_sender.contract.relay import Relay
from mailfleet_sender.ledger import migrate, open_ledger, preflights, save_relay
from mailfleet_sender.settings import Environment, PreflightSettings
from postfix import Postfix
from services import free_port
from sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from services import PostgresServer

LOGIN = ("mailer@postfix.test", "correct horse")
PLAIN = {"mode": "None"}


class Office:
    """One relay's row, and the verb over it as the operator's Job calls it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = open_ledger(url, application_name="office")

    def tell(self, server: Any, **spec: Any) -> None:
        """Write the relay's row."""
        where = {"host": server.host, "port": server.port, "tls": PLAIN}
        values = {"namespace": "shop", "name": "ses", "limits": {"rate": "10/s"}, **where, **spec}
        save_relay(self.engine, Relay.model_validate(values))

    def variables(self, **more: str) -> dict[str, str]:
        return {
            environment.LEDGER_URL: self.url,
            environment.RELAY: "shop/ses",
            environment.POD_NAME: "ses-preflight-0-abcde",
            environment.PREFLIGHT_FOR: "12345678",
            "MAILFLEET_SMTP_TIMEOUT_SECONDS": "5",
            **more,
        }

    def fly(self, **more: str) -> tuple[Exit, Preflight]:
        """Run the verb; its exit code, and what it wrote."""
        code = preflighting.preflight(PreflightSettings.read(Environment(self.variables(**more))))
        gc.collect()  # a connection that was left open is told of here, and not in some later test
        return code, preflights(self.engine, [("shop", "ses")])["shop", "ses"]

    def fault(self, server: Any, *, login: tuple[str, str] | None = None, ca: Path | None = None, **spec: Any) -> str:
        """Run it over a relay that has a fault; `fault: message`."""
        self.tell(server, **spec)
        secrets = {environment.SMTP_USERNAME: login[0], environment.SMTP_PASSWORD: login[1]} if login else {}
        code, found = self.fly(**secrets, **({environment.SMTP_CA_FILE: str(ca)} if ca else {}))
        assert code is not Exit.DONE
        assert found.capabilities == ()
        assert len(found.message.encode()) <= 256
        assert f"{server.host}:" in found.message
        return f"{found.fault}: {found.message}"


class Elsewhere:
    """A relay that is not there."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port


@pytest.fixture(scope="module")
def office(postgres: PostgresServer) -> Office:
    url = postgres.database()
    migrate(url)
    return Office(url)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def strict_postfix(certificates: Certificates) -> Iterator[Postfix]:
    """It takes mail under STARTTLS alone, from one user, and knows no TLS newer than 1.2."""
    with Postfix(certificates=certificates, login=LOGIN, smtpd_tls_mandatory_protocols="TLSv1.2") as server:
        yield server


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    with Sink(tmp_path) as server:
        yield server


def test_what_postfix_offers_before_and_after_tls_is_told(
    office: Office, strict_postfix: Postfix, certificates: Certificates
) -> None:
    office.tell(strict_postfix, tls={}, authenticate=True)
    secrets = {environment.SMTP_USERNAME: LOGIN[0], environment.SMTP_PASSWORD: LOGIN[1]}
    code, found = office.fly(**secrets, **{environment.SMTP_CA_FILE: str(certificates.ca)})
    assert (code, found.fault) == (Exit.DONE, None)
    assert {"PIPELINING", "STARTTLS", "AUTH", "8BITMIME", "CHUNKING"} <= {*found.capabilities}
    assert found.message.startswith(f"127.0.0.1:{strict_postfix.port} takes connections: TLSv1.2, logged in")
    assert "AUTH PLAIN LOGIN" in found.message or "AUTH LOGIN PLAIN" in found.message
    assert (found.made_for, found.reporter) == ("12345678", "ses-preflight-0-abcde")


def test_a_wrong_password_is_named_and_shown_nowhere(
    office: Office, strict_postfix: Postfix, certificates: Certificates, capfd: pytest.CaptureFixture[str]
) -> None:
    login = (LOGIN[0], "wrong battery")
    said = office.fault(strict_postfix, login=login, ca=certificates.ca, tls={}, authenticate=True)
    assert said.startswith("CredentialsRefused: ")
    assert "535" in said
    assert "auth.secretRef" in said
    for text in (said, *capfd.readouterr()):
        assert "battery" not in text
        assert LOGIN[0] not in text


def test_a_relay_without_the_wanted_version_of_tls_is_named(
    office: Office, strict_postfix: Postfix, certificates: Certificates
) -> None:
    said = office.fault(strict_postfix, ca=certificates.ca, tls={"minimumVersion": "1.3"})
    assert said.startswith("TlsFailed: ")
    assert "tls.minimumVersion" in said


def test_a_certificate_says_why_it_does_not_fit(
    office: Office, strict_postfix: Postfix, certificates: Certificates
) -> None:
    said = office.fault(strict_postfix, tls={})
    assert said.startswith("CertificateInvalid: ")
    assert "unable to get local issuer certificate" in said
    assert "tls.caSecretRef" in said


def test_exim_and_aiosmtpd_are_looked_at_in_the_clear(office: Office) -> None:
    with Exim() as exim:
        office.tell(exim)
        code, found = office.fly()
    assert (code, found.fault) == (Exit.DONE, None)
    assert "CHUNKING" in found.capabilities
    assert found.message.endswith("takes connections: no encryption, no login")
    with Aiosmtpd() as aiosmtpd:
        office.tell(aiosmtpd)
        code, found = office.fly()
    assert (code, found.fault) == (Exit.DONE, None)
    assert "PIPELINING" not in found.capabilities


def test_what_a_relay_does_not_offer_is_named(office: Office, sink: Sink) -> None:
    said = office.fault(sink, tls={})
    assert said.startswith("StartTlsNotOffered: ")
    assert "tls.mode" in said
    said = office.fault(sink, login=LOGIN, authenticate=True)
    assert said.startswith("AuthNotOffered: ")
    assert "remove the relay's auth" in said
    sink.behave({"phase": "ehlo", "reply": "250-sink.test\r\n250 AUTH GSSAPI XOAUTH2"})
    said = office.fault(sink, login=LOGIN, authenticate=True)
    assert said.startswith("AuthNotOffered: ")
    assert "GSSAPI XOAUTH2" in said
    said = office.fault(sink, authenticate=True)
    assert said.startswith("CredentialsMissing: ")


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ({"phase": "connect", "reply": "421 4.7.0 too many connections", "then": "close"}, RelayFault.RELAY_REFUSES),
        ({"phase": "connect", "reply": "554 5.7.1 not you", "then": "close"}, RelayFault.RELAY_REFUSES),
        ({"phase": "connect", "then": "reset"}, RelayFault.CONNECTION_CLOSED),
        ({"phase": "connect", "reply": "SSH-2.0-OpenSSH"}, RelayFault.NOT_SMTP),
        ({"phase": "ehlo", "reply": "550 bad name"}, RelayFault.RELAY_REFUSES),
    ],
    ids=str,
)
def test_a_relay_that_takes_nobody_is_named(
    office: Office, sink: Sink, rule: dict[str, Any], fault: RelayFault
) -> None:
    sink.behave(rule)
    assert office.fault(sink).startswith(f"{fault}: ")


@pytest.mark.parametrize(
    ("replies", "fault"),
    [
        (["554 5.7.1 not you"], "RelayRefuses"),
        (["220 hello", "250-hello\r\n250 AUTH PLAIN", "535 5.7.8 not you"], "CredentialsRefused"),
    ],
)
def test_a_relay_that_says_no_goodbye_is_not_waited_for(
    office: Office, certificates: Certificates, replies: list[str], fault: str
) -> None:
    context, heard = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), threading.Event()
    context.load_cert_chain(certificates.chain, certificates.key)

    def refuse(listener: socket.socket) -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
            for i, reply in enumerate(replies):
                if i:
                    connection.recv(1000)
                connection.sendall(f"{reply}\r\n".encode())
            heard.wait(30)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = threading.Thread(target=refuse, args=(listener,))
        relay.start()
        there = Elsewhere("localhost", listener.getsockname()[1])
        said = office.fault(there, login=LOGIN, ca=certificates.ca, tls={"mode": "Implicit"}, authenticate=True)
        heard.set()
        relay.join(30)
    assert said.startswith(f"{fault}: ")


def test_silence_is_a_timeout(office: Office, sink: Sink) -> None:
    sink.behave({"phase": "connect", "then": "stall"})
    office.tell(sink)
    _, found = office.fly(MAILFLEET_SMTP_TIMEOUT_SECONDS="0.5")
    assert found.fault is RelayFault.TIMEOUT
    assert "within 0.5 s" in found.message


def test_a_relay_that_is_not_there_is_named(office: Office, tmp_path: Path) -> None:
    assert office.fault(Elsewhere("127.0.0.1", free_port())).startswith("ConnectionRefused: ")
    said = office.fault(Elsewhere("relay.invalid", 25))
    assert said.startswith("HostNotFound: ")
    assert "the relay's host" in said
    (tmp_path / "ca.pem").write_text("no certificate")
    said = office.fault(Elsewhere("127.0.0.1", 25), ca=tmp_path / "ca.pem", tls={})
    assert said.startswith("CaInvalid: ")


def test_the_certificate_of_another_name_is_named(office: Office, tmp_path: Path, certificates: Certificates) -> None:
    with Sink(tmp_path, f"--tls-cert={certificates.chain}", f"--tls-key={certificates.key}") as sink:
        by_address = Elsewhere("127.0.0.1", sink.port)
        by_address.host = "127.1"  # the same address, and no name of the certificate's
        said = office.fault(by_address, ca=certificates.ca, tls={})
    assert said.startswith("CertificateInvalid: ")
    assert "127.1" in said


def test_when_the_ledger_is_away_the_last_words_say_so(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "termination-log"
    monkeypatch.setattr(last_words, "TERMINATION_LOG", str(log))
    away = f"postgresql://postgres@127.0.0.1:{free_port()}/x"
    settings = PreflightSettings.read(Environment(office.variables(**{environment.LEDGER_URL: away})))
    assert preflighting.preflight(settings) is Exit.INTERRUPTED
    assert "ledger-url" in log.read_text()
    settings = PreflightSettings.read(Environment(office.variables(**{environment.RELAY: "shop/another"})))
    assert preflighting.preflight(settings) is Exit.INTERRUPTED
    assert "knows no relay shop/another" in log.read_text()


def test_a_person_reads_what_is_found_and_nothing_is_written_down(office: Office, sink: Sink) -> None:
    office.tell(sink)
    office.fly()
    before = preflights(office.engine, [("shop", "ses")])
    variables = {k: v for k, v in office.variables().items() if k not in (environment.PREFLIGHT_FOR, environment.RELAY)}
    done = subprocess.run(
        [sys.executable, "-m", "mailfleet_sender", "preflight", "shop/ses"],
        env={**os.environ, **variables}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, second = done.stdout.splitlines()
    assert "takes connections" in first
    assert "PIPELINING" in second.split()
    assert json.loads(done.stderr.splitlines()[-1])["event"] == "preflight"
    assert preflights(office.engine, [("shop", "ses")]) == before
    assert sink.accepted() == []
