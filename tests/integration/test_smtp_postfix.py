"""Against a real Postfix: what arrives is what was sent, byte for byte, and its replies mean what the table says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mailfleet_sender.contract.relay import Limits, Relay, Tls, TlsMode
from mailfleet_sender.message import Mail
from mailfleet_sender.smtp import Connection, Connector, Verdict, VerdictKind

if TYPE_CHECKING:
    from postfix import Postfix

BODIES = {
    "dots": b".\r\n..\r\n...\r\n.x\r\n\r\n.\r\n",
    "commands": b".\r\nMAIL FROM:<evil@example.com>\r\nRCPT TO:<ann@example.com>\r\nDATA\r\n.\r\nQUIT\r\n",
    "long lines": b"x" * 998 + b"\r\n" + b"." * 998 + b"\r\n",
    "8bit": "Grüße, 你好, 🚀\r\n".encode() + b"\xff\xfe\r\n",
    "from": b"From nobody\r\n>From somebody\r\n",
    "big": b".0123456789\r\n" * 50_000,
    "empty": b"",
    "ends in blank lines": b"x\r\n\r\n\r\n",
}


def mail(name: str, body: bytes = b"Hello\r\n", sender: str = "news@example.org", to: str = "example.com") -> Mail:
    head = (
        f"From: {sender}\r\nTo: {name}@{to}\r\nSubject: x\r\nMessage-ID: <{name}@x>\r\n"
        "Date: Tue, 24 Nov 2026 00:00:00 +0000\r\n"
    )
    return Mail(sender, f"{name}@{to}", f"<{name}@x>", head.encode() + b"\r\n" + body)


async def connect(postfix: Postfix) -> Connection:
    relay = Relay(
        namespace="n",
        name="r",
        host=postfix.host,
        port=postfix.port,
        tls=Tls(mode=TlsMode.NONE),
        limits=Limits(rate="10/s"),
    )
    return await Connector(relay).connect()


async def deliver(postfix: Postfix, *mails: Mail) -> list[Verdict]:
    connection = await connect(postfix)
    verdicts = [await connection.send(each) for each in mails]
    await connection.close()
    return verdicts


async def test_every_message_arrives_equal_and_alone(postfix: Postfix) -> None:
    before = len(postfix.messages())
    mails = [mail(f"user{number}", body) for number, body in enumerate(BODIES.values())]
    verdicts = await deliver(postfix, *mails)
    assert [verdict.kind for verdict in verdicts] == [VerdictKind.SENT] * len(mails)
    assert all(verdict.queue_id for verdict in verdicts)
    arrived = await asyncio.to_thread(postfix.wait_for_messages, before + len(mails))
    assert len(arrived) == before + len(mails)
    for each, (what, _) in zip(mails, BODIES.items(), strict=True):
        name = each.message_id.encode()
        [copy] = [message for message in arrived if b"Message-ID: " + name in message]
        assert copy[copy.index(b"From: news@") :] == each.body.replace(b"\r\n", b"\n"), what


async def test_a_refused_recipient_between_two_others_harms_neither(postfix: Postfix) -> None:
    before = len(postfix.messages())
    first, refused, last = await deliver(
        postfix, mail("one"), mail("ann", to="elsewhere.example"), mail("two", sender="other@example.org")
    )
    assert (first.kind, last.kind) == (VerdictKind.SENT, VerdictKind.SENT)
    assert (refused.kind, refused.code, refused.policy) == (VerdictKind.FAILED, "554", True), refused
    assert "elsewhere" not in (refused.reply or "")
    arrived = await asyncio.to_thread(postfix.wait_for_messages, before + 2)
    [copy] = [message for message in arrived if b"Message-ID: <two@x>" in message]
    assert b"Return-Path: <other@example.org>" in copy, "never under the previous envelope's sender"


async def test_a_message_over_postfixs_limit_fails_alone(postfix: Postfix) -> None:
    small, big = await deliver(postfix, mail("small"), mail("toobig", b"x\r\n" * 4_000_000))
    assert (small.kind, big.kind, big.enhanced) == (VerdictKind.SENT, VerdictKind.FAILED, "5.3.4")
