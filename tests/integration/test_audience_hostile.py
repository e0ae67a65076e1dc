"""Hostile rows, from a real table through plan, page read, composer and SMTP to the oracle: data stays data."""

from __future__ import annotations

import email
import email.policy
from contextlib import ExitStack
from email.message import EmailMessage
from typing import TYPE_CHECKING

import psycopg2
import pytest

from ledgers import keys_of
from mailfleet_sender.audience import Audience, Row, open_recipients
from mailfleet_sender.contract.campaign import Message, Table
from mailfleet_sender.contract.materials import Materials
from mailfleet_sender.contract.relay import Relay
from mailfleet_sender.message import Composer, content, headers
from mailfleet_sender.smtp import Connector, VerdictKind
from postfix import Postfix

if TYPE_CHECKING:
    from sink import Sink

RUN = "marketing/hostile/1"
MARK = content.mark_of(RUN)
BOUNDARY = f"=_{MARK}"
HOSTILE = [
    "\n.\nMAIL FROM:<evil@example.com>\nRCPT TO:<victim@example.com>\nDATA\nforged\n.\nQUIT\n",
    "\r\n.\r\nMAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\nforged\r\n.\r\n",
    "\r.\rRSET\r",
    "\n.\r\nRCPT TO:<victim@example.com>",
    ".",
    "..",
    "\n..\n.",
    f"\r\n--{BOUNDARY}--\r\n\r\nforged",
    f"\n--{BOUNDARY}\nContent-Type: text/html\n\n<b>forged</b>",
    f"\r\n--=m{MARK}\r\nContent-Type: application/x-forged\r\n\r\nforged\r\n--=m{MARK}--\r\n",
    f"\n--=r{MARK}--\n",
    "x\r\nBcc: victim@example.com\r\n\r\nforged body",
    "{{ 7 * 7 }} {% raw %} {{ self }} {{ ''.__class__ }}",
    "<script>alert('x')</script> & \"quoted\" </p>",
    "=?utf-8?q?forged?= =0D=0A %0d%0a",
    "Zoë Müller-Łukasz 日本語 🎈 \u202e",
    "From here on\nFrom the start",
    "x" * 5000,
    "é" * 5000,
    "\x85\u2028\u2029\x0b\x0c\x1b[31m\x7f",
    "'; DROP TABLE subscribers; -- \\",
    " \t trailing blanks \t \n \t ",
]
MESSAGE = Message.model_validate(
    {
        "from": "{{ a[:100] }} <news@example.com>",
        "subject": "{{ a[:500] }}",
        "text": "{{ a }}\n{{ b }}",
        "html": "<p>{{ a }}</p>{{ b }}",
        "attachments": [
            {"name": "a.png", "configMapKeyRef": {"name": "c", "key": "a"}, "contentId": "logo"},
            {"name": "b \u00fc.bin", "configMapKeyRef": {"name": "c", "key": "b"}},
        ],
        "headers": {"X-Column": "{{ b[:500] }}"},
        "unsubscribe": {
            "url": "https://example.com/u?x={{ a[:50] }}",
            "mailto": "leave@example.com?subject={{ b[:50] }}",
        },
    }
)
OCTETS = b"\r\n.\r\nMAIL FROM:<evil@example.com>\r\n" + bytes(range(256)) * 8
MATERIALS = Materials(MARK, {}, (OCTETS, OCTETS[::-1]))
FIELDS = [
    "From", "To", "Subject", "Date", "Message-ID", "List-Unsubscribe", "List-Unsubscribe-Post", "X-Column",
    "MIME-Version", "Content-Type", "Content-Transfer-Encoding",
]  # fmt: skip


def lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")


def escaped(text: str) -> str:
    for char, entity in zip("&<>'\"", ["&amp;", "&lt;", "&gt;", "&#39;", "&#34;"], strict=True):
        text = text.replace(char, entity)
    return text


@pytest.fixture
def audience(database_url: str) -> Audience:
    """One row a hostile text: it stands in column a, its successor in b, and both as addresses of further rows."""
    connection = psycopg2.connect(database_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE subscribers (id text PRIMARY KEY, email text, a text, b text)")
        for n, text in enumerate(HOSTILE):
            row = (f"user{n}@example.net", text, HOSTILE[(n + 1) % len(HOSTILE)])
            cursor.execute("INSERT INTO subscribers VALUES (%s, %s, %s, %s)", (text + str(n), *row))
            cursor.execute("INSERT INTO subscribers VALUES (%s, %s, 'a', 'b')", (f"bad {n}", f"user@example.net{text}"))
    connection.close()
    return Audience(open_recipients(database_url, application_name="test"), Table(name="subscribers"), ("a", "b"))


@pytest.mark.parametrize("by", ["straight", "through Postfix"])
async def test_hostile_data_arrives_as_data_in_one_message_each(sink: Sink, audience: Audience, by: str) -> None:
    with ExitStack() as stack:
        port = sink.port if by == "straight" else stack.enter_context(Postfix(next_port=sink.port)).port
        sent = await deliver(audience, port)
        sink.wait_for_accepted(len(HOSTILE), seconds=60)
    received = sink.messages()
    assert sorted(recipient for recipient, _ in received) == sorted(sent)
    assert sorted(sent) == sorted(f"user{n}@example.net" for n in range(len(HOSTILE)))
    for recipient, body in received:
        check(email.message_from_bytes(body, policy=email.policy.default), sent[recipient])


async def deliver(audience: Audience, port: int) -> dict[str, Row]:
    """Plan, read, compose and send all; rows by address."""
    keys = [key for page in audience.pages() if page.reason is None for key in keys_of(page)]
    rows = audience.rows(keys)
    assert sorted(rows) == sorted(keys)
    made = Composer(MESSAGE, run_key=RUN, materials=MATERIALS)
    limits = {"rate": "1000/s"}
    relay = Relay.model_validate(
        {"namespace": "n", "name": "r", "host": "127.0.0.1", "port": port, "tls": {"mode": "None"}, "limits": limits}
    )
    connection = await Connector(relay).connect()
    sent: dict[str, Row] = {}
    try:
        for key, row in rows.items():
            assert isinstance(row, Row)
            mail = made.compose(row, key=key, eight_bit=connection.eight_bit)
            verdict = await connection.send(mail)
            assert verdict.kind is VerdictKind.SENT
            sent[mail.recipient] = row
    finally:
        await connection.close()
    return sent


def check(message: EmailMessage, row: Row) -> None:
    """What arrived is what the row holds, in the fields that were meant, and nothing else."""
    a, b = str(row.values["a"]), str(row.values["b"])
    assert [name for name in message.keys() if name != "Received"] == FIELDS  # noqa: SIM118 - fields repeat
    assert str(message["Subject"]) == headers.one_line(a[:500])
    assert str(message["X-Column"]) == headers.one_line(b[:500])
    assert [address.addr_spec for address in message["From"].addresses] == ["news@example.com"]
    assert message["To"] == row.email
    alternative, attachment = message.iter_parts()
    plain, related = alternative.iter_parts()
    html, picture = related.iter_parts()
    assert isinstance(plain, EmailMessage)
    assert isinstance(html, EmailMessage)
    assert (picture.get_filename(), attachment.get_filename()) == ("a.png", "b ü.bin")
    assert (picture.get_payload(decode=True), attachment.get_payload(decode=True)) == MATERIALS.files
    assert plain.get_content() == lines(f"{a}\n{b}")
    assert html.get_content() == lines(f"<p>{escaped(a)}</p>{escaped(b)}")
    assert len(list(message.walk())) == 7
    assert not any(part.defects for part in message.walk())
    assert b"victim" not in message["To"].encode()
