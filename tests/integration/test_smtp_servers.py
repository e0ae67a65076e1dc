"""Three real servers, each mode that each offers: 1,000 messages that arrive equal after parsing."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections import Counter
from typing import TYPE_CHECKING, Protocol

import pytest

from aiosmtpd_server import Aiosmtpd
from exim import Exim
from mailfleet_sender.audience import Row
from mailfleet_sender.contract.campaign import Message
from mailfleet_sender.contract.relay import Connections, Limits, Pipelining, Relay, Tls, TlsMode
from mailfleet_sender.message import Composer
from mailfleet_sender.smtp import Connector, Mode, Modes, VerdictKind
from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailfleet_sender.message import Mail
    from mailfleet_sender.smtp import Verdict
    from postfix import Postfix

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


class Server(Protocol):
    """What the three have in common."""

    host: str
    port: int

    def messages(self) -> list[bytes]: ...


@pytest.fixture(scope="module")
def exim() -> Iterator[Exim]:
    with Exim() as server:
        yield server


@pytest.fixture(scope="module")
def aiosmtpd() -> Iterator[Aiosmtpd]:
    with Aiosmtpd() as server:
        yield server


def relay(server: Server, mode: Mode) -> Relay:
    return Relay(
        namespace="n",
        name="r",
        host=server.host,
        port=server.port,
        tls=Tls(mode=TlsMode.NONE),
        limits=Limits(rate="10/s"),
        connections=Connections(messages_per_connection=10_000),
        pipelining=Pipelining(mode.name.capitalize()),
    )


async def deliver(server: Server, mode: Mode, mails: list[Mail]) -> Counter[VerdictKind]:
    """Over a few connections, each as deep as it goes."""
    connector, left = Connector(relay(server, mode), modes=Modes()), list(reversed(mails))
    verdicts: list[Verdict] = []

    async def pump() -> None:
        connection = await connector.connect()
        assert connection.mode is mode
        under_way: set[asyncio.Future[Verdict]] = set()
        while left or under_way:
            while left and len(under_way) < connection.depth:
                under_way.add(connection.submit(left.pop()))
            done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            verdicts.extend(each.result() for each in done)
        await connection.close()

    await asyncio.gather(*(pump() for _ in range(CONNECTIONS)))
    return Counter(verdict.kind for verdict in verdicts)


def essence(body: bytes) -> tuple[str, ...]:
    """What a reader sees of a message, and what makes it his."""
    message = email.message_from_bytes(body, policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    parts = [message.get_body((kind,)) for kind in ("plain", "html")]
    texts = [part.get_content().replace("\r\n", "\n") if part else "" for part in parts]
    names = ("From", "To", "Subject", "Message-ID", "List-Unsubscribe", "X-Note")
    return (*(str(message[name]) for name in names), *texts)


async def check(server: Server, mode: Mode) -> None:
    composer = Composer(
        Message.model_validate({
            "from": "Example Shop <news@example.com>",
            "subject": "{{ name }}, our news",
            "text": "Hello {{ name }},\n{{ note }}\nbye\n",
            "html": "<p>Hello {{ name }}</p>\n<pre>{{ note }}</pre>\n",
            "headers": {"X-Note": "{{ name }} and more"},
            "unsubscribe": {"url": "https://example.com/u/{{ name }}"},
        }),
        run_key=f"test/{mode.name}/{server.port}",
        list_id="test.example.com",
    )  # fmt: skip
    mails = [
        composer.compose(
            Row(str(n), f"user{n}@example.com", {"name": f"Zoë {n}", "note": NOTES[n % len(NOTES)]}),
            key=str(n), eight_bit=True,
        )
        for n in range(MESSAGES)
    ]  # fmt: skip
    before = len(server.messages())
    assert await deliver(server, mode, mails) == {VerdictKind.SENT: MESSAGES}
    await asyncio.to_thread(
        wait_for, "all messages in the mailbox", lambda: len(server.messages()) >= before + MESSAGES, seconds=120
    )
    ids = {mail.message_id for mail in mails}
    arrived = sorted(found for body in server.messages() if (found := essence(body))[3] in ids)
    assert len(arrived) == MESSAGES
    for one, other in zip(arrived, sorted(essence(mail.body) for mail in mails), strict=True):
        assert one == other


@pytest.mark.parametrize("mode", Mode)
async def test_postfix(postfix: Postfix, mode: Mode) -> None:
    await check(postfix, mode)


@pytest.mark.parametrize("mode", Mode)
async def test_exim(exim: Exim, mode: Mode) -> None:
    await check(exim, mode)


async def test_aiosmtpd(aiosmtpd: Aiosmtpd) -> None:
    await check(aiosmtpd, Mode.SEQUENTIAL)
