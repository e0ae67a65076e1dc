"""Connector and Connection on a real socket, against a relay that behaves as it is told."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest

from certificates import Certificates
from mailfleet_sender.contract.relay import Connections, Limits, Relay, Tls, TlsMode, Verification
from mailfleet_sender.errors import RelayUnavailable, SenderFault
from mailfleet_sender.message import Mail
from mailfleet_sender.smtp import Connector, Timeouts, VerdictKind
from services import free_port, wait_for
from sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "corréct horse"
BODY = b"Subject: x\r\n\r\nHello\r\n.\r\n.dots\r\n"


def relay(port: int, mode: TlsMode = TlsMode.NONE, **changes: Any) -> Relay:
    return Relay(
        **{
            "namespace": "n",
            "name": "r",
            "host": "127.0.0.1",
            "port": port,
            "tls": Tls(mode=mode),
            "limits": Limits(rate="10/s"),
            **changes,
        }
    )


def mail(name: str = "ann", body: bytes = BODY) -> Mail:
    return Mail("news@example.com", f"{name}@example.com", f"<{name}@example.com>", body)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def secure(tmp_path: Path, certificates: Certificates) -> Iterator[Sink]:
    """A relay that wants STARTTLS and AUTH."""
    options = (f"--tls-cert={certificates.chain}", f"--tls-key={certificates.key}", "--require-tls")
    with Sink(tmp_path, *options, f"--auth=mailer:{SECRET}") as server:
        yield server


# --- mails -------------------------------------------------------------------------------------------


async def test_mails_over_one_connection_arrive_as_they_were_made(sink: Sink) -> None:
    connection = await Connector(relay(sink.port)).connect()
    bodies = [BODY, b".\r\n", b"..\r\n\r\n.\r\n", "Grüße\r\n".encode(), b"x" * 998 + b"\r\n", b"y\r\n" * 100_000]
    for number, body in enumerate(bodies):
        verdict = await connection.send(mail(f"user{number}", body))
        assert verdict.kind is VerdictKind.SENT
    await connection.close()
    assert [body for _, body in sink.messages()] == bodies


@pytest.mark.parametrize(
    ("rule", "kind", "accepted"),
    [
        ({"phase": "mail", "reply": "451 4.3.0 later"}, VerdictKind.DEFERRED, 0),
        ({"phase": "rcpt", "reply": "450 4.2.0 later"}, VerdictKind.DEFERRED, 0),
        ({"phase": "data", "reply": "451 4.3.0 later"}, VerdictKind.DEFERRED, 0),
        ({"phase": "dot", "reply": "452 4.3.1 later"}, VerdictKind.DEFERRED, 0),
        ({"phase": "rcpt", "reply": "550 5.1.1 unknown"}, VerdictKind.FAILED, 0),
        ({"phase": "dot", "reply": "554 5.7.1 spam"}, VerdictKind.FAILED, 0),
        ({"phase": "mail", "reply": "553 5.1.8 who?"}, VerdictKind.SENDER_FAULT, 0),
        ({"phase": "mail", "reply": "421 4.3.0 later", "then": "close"}, VerdictKind.RETRY, 0),
        ({"phase": "rcpt", "reply": "450 4.7.28 slow down"}, VerdictKind.RETRY, 0),
        ({"phase": "data", "reply": "500 5.5.1 what?"}, VerdictKind.RETRY, 0),
        ({"phase": "mail", "then": "reset"}, VerdictKind.RETRY, 0),
        ({"phase": "rcpt", "then": "close"}, VerdictKind.RETRY, 0),
        ({"phase": "data", "then": "reset"}, VerdictKind.RETRY, 0),
        ({"phase": "data", "then": "stall"}, VerdictKind.RETRY, 0),
        ({"phase": "rcpt", "reply": "what is this?"}, VerdictKind.RETRY, 0),
        ({"phase": "dot", "then": "reset"}, VerdictKind.UNCERTAIN, 0),
        ({"phase": "dot", "then": "reset", "accept": True}, VerdictKind.UNCERTAIN, 1),
        ({"phase": "dot", "then": "close", "accept": True}, VerdictKind.UNCERTAIN, 1),
        ({"phase": "dot", "then": "stall", "accept": True}, VerdictKind.UNCERTAIN, 1),
        ({"phase": "dot", "reply": "25", "then": "close", "accept": True}, VerdictKind.UNCERTAIN, 1),
        ({"phase": "dot", "reply": "250 ok", "then": "close", "accept": True}, VerdictKind.SENT, 1),
        ({"phase": "dot", "delay": 0.2}, VerdictKind.SENT, 1),
    ],
    ids=str,
)
async def test_each_thing_a_relay_can_do_has_its_verdict(
    sink: Sink, rule: dict[str, Any], kind: VerdictKind, accepted: int
) -> None:
    sink.behave(rule)
    timeouts = Timeouts(data_seconds=1.0, dot_seconds=1.0)
    connection = await Connector(relay(sink.port), timeouts=timeouts).connect()
    verdict = await connection.send(mail())
    assert verdict.kind is kind, verdict
    await connection.close()
    assert len(sink.accepted()) == accepted


async def test_a_connection_lasts_as_long_as_the_relay_says(sink: Sink) -> None:
    few = await Connector(relay(sink.port, connections=Connections(messages_per_connection=2))).connect()
    assert (await few.send(mail())).kind is VerdictKind.SENT
    assert few.usable
    assert (await few.send(mail("bob"))).kind is VerdictKind.SENT
    assert not few.usable
    await few.close()
    patient, brief = [
        await Connector(relay(sink.port, connections=Connections(idle_timeout_seconds=seconds))).connect()
        for seconds in (3600, 1)
    ]
    await asyncio.to_thread(wait_for, "it lay idle for too long", lambda: not brief.usable)
    assert patient.usable
    await patient.close()
    await brief.close()


@pytest.mark.parametrize(("hello_name", "said"), [("[192.0.2.1]", "[192.0.2.1]"), (None, socket.gethostname())])
async def test_it_greets_with_the_name_that_the_relay_is_given(hello_name: str | None, said: str) -> None:
    heard: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        heard.append((await reader.readline()).decode())
        writer.write(b"250 hello\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        connection = await Connector(relay(port, hello_name=hello_name), timeouts=Timeouts(quit_seconds=0.3)).connect()
        await connection.close()
    assert heard == [f"EHLO {said}\r\n"]


async def test_a_refused_recipient_leaves_the_connection_usable_for_the_next(sink: Sink) -> None:
    sink.behave({"phase": "rcpt", "reply": "550 5.1.1 <ann@example.com> unknown", "recipient": "^ann"})
    connection = await Connector(relay(sink.port)).connect()
    refused, sent = await connection.send(mail("ann")), await connection.send(mail("bob"))
    assert (refused.kind, refused.suppress, refused.reply) == (VerdictKind.FAILED, True, "5.1.1 <recipient> unknown")
    assert sent.kind is VerdictKind.SENT
    await connection.close()
    assert sink.recipients() == ["bob@example.com"]


async def test_a_reset_in_the_middle_of_a_long_message_means_try_again(sink: Sink) -> None:
    sink.behave({"phase": "body", "after_bytes": 200_000, "then": "reset"})
    connection = await Connector(relay(sink.port)).connect()
    verdict = await connection.send(mail(body=b"x" * 76 + b"\r\n" + b"y\r\n" * 5_000_000))
    assert verdict.kind is VerdictKind.RETRY
    assert sink.accepted() == []


async def test_a_relay_that_falls_silent_after_a_short_message_leaves_it_uncertain(sink: Sink) -> None:
    sink.behave({"phase": "body", "then": "stall"})
    connection = await Connector(relay(sink.port), timeouts=Timeouts(dot_seconds=0.5)).connect()
    verdict = await connection.send(mail())
    assert verdict.kind is VerdictKind.UNCERTAIN, "the dot was in the same write"


async def test_kill_9_of_the_relay_between_mails_means_try_again_and_a_new_connection_works(sink: Sink) -> None:
    connector = Connector(relay(sink.port))
    connection = await connector.connect()
    assert (await connection.send(mail("ann"))).kind is VerdictKind.SENT
    sink.kill()
    assert (await connection.send(mail("bob"))).kind is VerdictKind.RETRY
    await connection.close()
    with pytest.raises(RelayUnavailable):
        await connector.connect()
    sink.start()
    connection = await connector.connect()
    assert (await connection.send(mail("bob"))).kind is VerdictKind.SENT
    await connection.close()
    assert sink.recipients() == ["ann@example.com", "bob@example.com"]


async def test_a_relay_killed_under_load_took_exactly_what_is_sent_or_uncertain(sink: Sink) -> None:
    connector = Connector(relay(sink.port, connections=Connections(messages_per_connection=10_000)))
    verdicts: dict[str, VerdictKind] = {}
    busy = asyncio.Event()

    async def pump(lane: int) -> None:
        connection = await connector.connect()
        number = 0
        while connection.usable:
            name = f"lane{lane}.{number}"
            verdicts[f"{name}@example.com"] = (await connection.send(mail(name))).kind
            number += 1
            if len(verdicts) >= 500:
                busy.set()
        await connection.close()

    lanes = [asyncio.create_task(pump(lane)) for lane in range(8)]
    await busy.wait()
    sink.kill()
    await asyncio.gather(*lanes)
    took = set(sink.recipients())
    sent = {who for who, kind in verdicts.items() if kind is VerdictKind.SENT}
    uncertain = {who for who, kind in verdicts.items() if kind is VerdictKind.UNCERTAIN}
    assert sent <= took <= sent | uncertain
    assert len(uncertain) <= 8


# --- opening -----------------------------------------------------------------------------------------


async def test_starttls_and_auth_with_an_own_ca(secure: Sink, certificates: Certificates) -> None:
    settings = relay(secure.port, TlsMode.START_TLS, authenticate=True)
    connection = await Connector(settings, username="mailer", password=SECRET, ca_file=certificates.ca).connect()
    assert (await connection.send(mail(body=b"y\r\n" * 100_000))).kind is VerdictKind.SENT
    await connection.close()
    assert len(secure.accepted()) == 1


async def test_implicit_tls_with_an_own_ca(tmp_path: Path, certificates: Certificates) -> None:
    with Sink(tmp_path, f"--tls-cert={certificates.chain}", f"--tls-key={certificates.key}", "--implicit-tls") as sink:
        settings = relay(sink.port, TlsMode.IMPLICIT, host="localhost")
        connection = await Connector(settings, ca_file=certificates.ca).connect()
        assert (await connection.send(mail())).kind is VerdictKind.SENT
        await connection.close()


async def test_a_certificate_of_an_unknown_ca_is_refused_and_the_message_says_what_to_do(secure: Sink) -> None:
    with pytest.raises(RelayUnavailable) as caught:
        await Connector(relay(secure.port, TlsMode.START_TLS)).connect()
    said = str(caught.value)
    assert f"127.0.0.1:{secure.port}" in said
    assert "TLS verification" in said
    assert "caSecretRef" in said
    assert len(said.encode()) <= 256


async def test_without_verification_an_unknown_ca_is_taken(secure: Sink) -> None:
    tls = Tls(mode=TlsMode.START_TLS, verification=Verification.NONE)
    connection = await Connector(relay(secure.port, tls=tls)).connect()
    assert (await connection.send(mail())).kind is VerdictKind.SENDER_FAULT, "530: it wants AUTH"
    await connection.close()


@pytest.mark.parametrize("password", ["wrong", "", None])
async def test_bad_credentials_stop_the_campaign_and_are_never_shown(
    secure: Sink, certificates: Certificates, password: str | None
) -> None:
    settings = relay(secure.port, TlsMode.START_TLS, authenticate=True)
    secure.behave({"phase": "auth", "reply": f"535 5.7.8 wrong password for mailer: {password}"})
    with pytest.raises(SenderFault) as caught:
        await Connector(settings, username="mailer", password=password, ca_file=certificates.ca).connect()
    said = str(caught.value)
    assert f"127.0.0.1:{secure.port}" in said
    assert "auth.secretRef" in said
    assert "mailer" not in said
    assert caught.value.__cause__ is None
    assert password is None or not password or f": {password}:" not in said


async def test_454_to_auth_waits_instead_of_stopping(secure: Sink, certificates: Certificates) -> None:
    secure.behave({"phase": "auth", "reply": "454 4.7.0 Temporary authentication failure"})
    settings = relay(secure.port, TlsMode.START_TLS, authenticate=True)
    with pytest.raises(RelayUnavailable, match="454"):
        await Connector(settings, username="mailer", password=SECRET, ca_file=certificates.ca).connect()


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"phase": "connect", "reply": "421 4.7.0 too many connections", "then": "close"}, "421"),
        ({"phase": "connect", "reply": "554 5.7.1 not you", "then": "close"}, "554"),
        ({"phase": "connect", "then": "reset"}, "closed the connection"),
        ({"phase": "connect", "then": "stall"}, "did not answer"),
        ({"phase": "connect", "reply": "SSH-2.0-OpenSSH"}, "check host, port"),
        ({"phase": "ehlo", "reply": "550 bad name"}, "helloName"),
        ({"phase": "ehlo", "then": "close"}, "closed the connection"),
    ],
    ids=str,
)
async def test_a_relay_that_takes_no_mail_is_named_with_the_remedy(sink: Sink, rule: dict[str, Any], said: str) -> None:
    sink.behave(rule)
    with pytest.raises(RelayUnavailable) as caught:
        await Connector(relay(sink.port), timeouts=Timeouts(greeting_seconds=0.5)).connect()
    assert said in str(caught.value)
    assert f"127.0.0.1:{sink.port}" in str(caught.value)
    assert len(str(caught.value).encode()) <= 256


async def test_a_refused_port_an_unknown_name_and_missing_offers_are_named(sink: Sink) -> None:
    with pytest.raises(RelayUnavailable, match="refuses connections"):
        await Connector(relay(free_port())).connect()
    with pytest.raises(RelayUnavailable, match="cannot be resolved"):
        await Connector(relay(25, host="relay.invalid")).connect()
    with pytest.raises(RelayUnavailable, match="does not offer STARTTLS"):
        await Connector(relay(sink.port, TlsMode.START_TLS)).connect()
    with pytest.raises(SenderFault, match="does not offer AUTH"):
        await Connector(relay(sink.port, authenticate=True), username="u", password="p").connect()
    with pytest.raises(RelayUnavailable, match=r"tls\.mode"):
        await Connector(relay(sink.port, TlsMode.IMPLICIT), timeouts=Timeouts(greeting_seconds=5)).connect()


async def test_a_ca_file_that_is_none_is_named(sink: Sink, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(RelayUnavailable, match="no PEM bundle"):
        await Connector(relay(sink.port, TlsMode.START_TLS), ca_file=tmp_path / "ca.pem").connect()


async def test_a_relay_that_knows_only_helo_is_spoken_to_plainly(sink: Sink) -> None:
    sink.behave({"phase": "ehlo", "reply": "502 5.5.1 not implemented", "count": 1})
    connection = await Connector(relay(sink.port)).connect()
    assert not connection.eight_bit
    assert (await connection.send(mail())).kind is VerdictKind.SENT
    await connection.close()


async def test_closing_never_hangs_even_if_the_relay_does(sink: Sink) -> None:
    sink.behave({"phase": "quit", "then": "stall"})
    connection = await Connector(relay(sink.port), timeouts=Timeouts(quit_seconds=0.3)).connect()
    async with asyncio.timeout(60):
        await connection.close()
        await connection.close()
    assert not connection.usable
