"""Three real servers, each mode that each offers: 1,000 messages that arrive equal after parsing.

Each holds unicode, dots at line starts or lines over 998 octets in both bodies and in a file, and a picture.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import functools
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from aiosmtpd_server import Aiosmtpd
from certificates import Certificates
from exim import Exim
from mailfleet_sender.audience import Row
from mailfleet_sender.contract.campaign import Message
from mailfleet_sender.contract.materials import Materials
from mailfleet_sender.contract.relay import Connections, Limits, Pipelining, Relay, Tls, TlsMode
from mailfleet_sender.errors import SenderFault
from mailfleet_sender.message import Composer
from mailfleet_sender.smtp import Connector, Mode, Modes, VerdictKind
from postfix import Postfix
from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mailfleet_sender.message import Mail
    from mailfleet_sender.smtp import Verdict

MESSAGES, CONNECTIONS = 1_000, 4
NOTES = [
    "plain",
    "Grüße, 你好, 🚀",
    ".\n..\n.x\n...",
    "\n.\nMAIL FROM:<evil@example.com>\nRCPT TO:<evil@example.com>\nDATA\n.\nQUIT\n",
    "x" * 2_000,
    "ü" * 1_500 + "\n." + "y" * 1_200,
    "From nobody\n>From somebody\n--\n",
    "trailing blanks   \n\n\n",
]
LOGO = b"\x89PNG\r\n\x1a\n\0\r\n.\r\n" + bytes(range(256))
TERMS = ".\n..\n.x\r\n.\r\nMAIL FROM:<evil@example.com>\r\nGrüße, 你好\n".encode() + b"z" * 2_000 + b"\r\n.\r\n\xff\0"
FILES = [
    ("logo.png", "image/png", "<logo>", LOGO),
    ("Geschäftsbedingungen.pdf", "application/pdf", "None", TERMS),
]
MESSAGE_ID = re.compile(rb"^Message-ID: (\S+)", re.MULTILINE)
LOGIN = ("mailer@postfix.test", "correct horse")


class Server(Protocol):
    """What the three have in common."""

    host: str
    port: int

    @property
    def arrived(self) -> Path: ...


@pytest.fixture(scope="module")
def exim() -> Iterator[Exim]:
    with Exim() as server:
        yield server


@pytest.fixture(scope="module")
def aiosmtpd() -> Iterator[Aiosmtpd]:
    with Aiosmtpd() as server:
        yield server


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def strict_postfix(certificates: Certificates) -> Iterator[Postfix]:
    """It takes mail under STARTTLS alone, from one user."""
    with Postfix(certificates=certificates, login=LOGIN) as server:
        yield server


def relay(server: Server, mode: Mode, **changes: Any) -> Relay:
    return Relay(
        **{
            "namespace": "n",
            "name": "r",
            "host": server.host,
            "port": server.port,
            "tls": Tls(mode=TlsMode.NONE),
            "limits": Limits(rate="10/s"),
            "connections": Connections(messages_per_connection=10_000),
            "pipelining": Pipelining(mode.name.capitalize()),
            **changes,
        }
    )


def opening(server: Server, mode: Mode) -> Connector:
    return Connector(relay(server, mode), modes=Modes())


def strict_opening(server: Server, mode: Mode, ca: Path, password: str = LOGIN[1]) -> Connector:
    settings = relay(server, mode, tls=Tls(mode=TlsMode.START_TLS), authenticate=True)
    return Connector(settings, username=LOGIN[0], password=password, ca_file=ca, modes=Modes())


async def deliver(connector: Connector, mode: Mode, mails: list[Mail]) -> Counter[VerdictKind]:
    """Over a few connections, each as deep as it goes."""
    left = list(reversed(mails))
    verdicts: list[Verdict] = []

    async def pump() -> None:
        connection = await connector.connect()
        assert connection.mode is mode
        under_way: set[asyncio.Future[Verdict]] = set()
        while left or under_way:
            while left and len(under_way) < connection.depth:
                under_way.add(asyncio.ensure_future(connection.send(left.pop())))
            done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            verdicts.extend(each.result() for each in done)
        await connection.close()

    await asyncio.gather(*(pump() for _ in range(CONNECTIONS)))
    return Counter(verdict.kind for verdict in verdicts)


def essence(body: bytes) -> tuple[Any, ...]:
    """What a reader sees of a message, and what makes it his."""
    message = email.message_from_bytes(body, policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    parts = [message.get_body((kind,)) for kind in ("plain", "html")]
    texts = [part.get_content().replace("\r\n", "\n") if part else "" for part in parts]
    names = ("Message-ID", "From", "To", "Subject", "List-Unsubscribe", "X-Note")
    files = [
        (name, part.get_content_type(), str(part["Content-ID"]), part.get_payload(decode=True))
        for part in message.walk()
        if (name := part.get_filename())
    ]
    return (*(str(message[name]) for name in names), *texts, files)


@functools.cache
def composed() -> list[Mail]:
    """All mails, the same for each server and mode."""
    composer = Composer(
        Message.model_validate({
            "from": "Example Shop <news@example.com>",
            "subject": "{{ name }}, our news",
            "text": "Hello {{ name }},\n{{ note }}\nbye\n",
            "html": '<img src="cid:logo"><p>Hello {{ name }}</p>\n<pre>{{ note }}</pre>\n',
            "headers": {"X-Note": "{{ name }} and more"},
            "unsubscribe": {"url": "https://example.com/u/{{ name }}"},
            "attachments": [
                {"name": "logo.png", "configMapKeyRef": {"name": "m", "key": "logo"}, "contentId": "logo"},
                {"name": "Geschäftsbedingungen.pdf", "configMapKeyRef": {"name": "m", "key": "terms"}},
            ],
        }),
        run_key="test/servers/1",
        list_id="test.example.com",
        materials=Materials(boundary=f"{7:032x}", files=(LOGO, TERMS)),
    )  # fmt: skip
    return [
        composer.compose(
            Row(str(n), f"user{n}@example.com", {"name": f"Zoë {n}", "note": NOTES[n % len(NOTES)]}),
            key=str(n), eight_bit=True,
        )
        for n in range(MESSAGES)
    ]  # fmt: skip


@functools.cache
def expected() -> list[tuple[Any, ...]]:
    """What must have arrived, in order of Message-ID; made once, for parsing is slow."""
    return sorted(essence(mail.body) for mail in composed())


def ours(server: Server) -> list[bytes]:
    """What arrived of `composed`; other tests use the same Postfix."""
    ids = {mail.message_id.encode() for mail in composed()}
    bodies = [file.read_bytes() for file in server.arrived.iterdir()]
    return [body for body in bodies if (found := MESSAGE_ID.search(body)) and found[1] in ids]


async def check(server: Server, mode: Mode, connector: Connector) -> None:
    for file in server.arrived.glob("*"):
        file.unlink()
    assert await deliver(connector, mode, composed()) == {VerdictKind.SENT: MESSAGES}
    await asyncio.to_thread(
        wait_for,
        "all messages in the mailbox",
        lambda: len(list(server.arrived.iterdir())) >= MESSAGES and len(ours(server)) >= MESSAGES,
        seconds=120,
    )
    arrived = sorted(essence(body) for body in ours(server))
    assert len(arrived) == MESSAGES
    for one, other in zip(arrived, expected(), strict=True):
        assert one == other
        assert one[-1] == FILES


@pytest.mark.parametrize("mode", Mode)
async def test_postfix(postfix: Postfix, mode: Mode) -> None:
    await check(postfix, mode, opening(postfix, mode))


@pytest.mark.parametrize("mode", Mode)
async def test_postfix_with_starttls_and_auth(strict_postfix: Postfix, certificates: Certificates, mode: Mode) -> None:
    await check(strict_postfix, mode, strict_opening(strict_postfix, mode, certificates.ca))


async def test_postfix_refuses_a_wrong_password_and_who_says_none(
    strict_postfix: Postfix, certificates: Certificates
) -> None:
    """Else the test above would show nothing."""
    with pytest.raises(SenderFault, match="535"):
        await strict_opening(strict_postfix, Mode.PIPELINED, certificates.ca, "wrong").connect()
    settings = relay(strict_postfix, Mode.PIPELINED, tls=Tls(mode=TlsMode.START_TLS))
    connection = await Connector(settings, ca_file=certificates.ca).connect()
    verdict = await connection.send(composed()[0])
    assert (verdict.kind, verdict.code) == (VerdictKind.FAILED, "554")
    await connection.close()
    plain = await opening(strict_postfix, Mode.PIPELINED).connect()
    assert (await plain.send(composed()[1])).kind is VerdictKind.SENDER_FAULT
    await plain.close()


@pytest.mark.parametrize("mode", Mode)
async def test_exim(exim: Exim, mode: Mode) -> None:
    await check(exim, mode, opening(exim, mode))


async def test_aiosmtpd(aiosmtpd: Aiosmtpd) -> None:
    await check(aiosmtpd, Mode.SEQUENTIAL, opening(aiosmtpd, Mode.SEQUENTIAL))
