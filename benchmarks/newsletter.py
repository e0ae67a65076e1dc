"""The mail that all senders of `bench.py` send, its recipients, and what the sink must have counted of both."""

from __future__ import annotations

import html
import re
import zlib
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("Anna", "Bob", "Tom & Ann", "Carl")
"""First names in turn; one must be escaped in HTML."""
LIMITED_DOMAIN = "example.org"
"""Every fourth recipient is there; the others are at example.net."""
WORD = 0xFFFF_FFFF_FFFF_FFFF

TABLES = """
CREATE TABLE recipients (
    id bigint PRIMARY KEY, email text NOT NULL, first_name text, plan text, renews text, token text);
INSERT INTO recipients
SELECT g, 'user' || g || '@' || CASE WHEN g % 4 = 0 THEN '{domain}' ELSE 'example.net' END,
       ('{{{names}}}'::text[])[1 + g % {many}], 'Gold', '2027-05-01', md5(g::text)
FROM generate_series(1, {count}) g;
CREATE TABLE peer_ledger (
    recipient bigint PRIMARY KEY, status smallint NOT NULL, code smallint, response text,
    recorded timestamptz NOT NULL DEFAULT now());
"""


def tables(count: int) -> str:
    """SQL of the recipients, and of the ledger that the peers write."""
    names = ",".join(f'"{name}"' for name in NAMES)
    return TABLES.format(names=names, many=len(NAMES), count=count, domain=LIMITED_DOMAIN)


@dataclass(frozen=True, slots=True)
class File:
    """What a ConfigMap holds under its name; with `content_id` the HTML shows it."""

    name: str
    data: bytes
    content_id: str | None = None


def noise(octets: int) -> bytes:
    """Octets that no encoding makes smaller, the same each time."""
    digests = chain.from_iterable(sha256(str(n).encode()).digest() for n in range(octets))
    return bytes(islice(digests, octets))


FILES = (File("logo.png", noise(2_000), "logo"), File("terms.pdf", noise(8_000)))
"""In the order in which their parts come. In base64 they are 13.7 KB: three times the rest of the mail."""
CONFIG_MAP = "files"


@dataclass(frozen=True, slots=True)
class Newsletter:
    """Three templates that name columns as Jinja does, `{{ first_name }}`; lines of at most 76 characters."""

    subject: str
    text: str
    html: str
    files: tuple[File, ...] = ()

    @property
    def attachments(self) -> list[dict[str, Any]]:
        """`spec.message.attachments`."""
        return [
            {
                "name": file.name,
                "configMapKeyRef": {"name": CONFIG_MAP, "key": file.name},
                **({"contentId": file.content_id} if file.content_id else {}),
            }
            for file in self.files
        ]

    def mount(self, folder: Path) -> None:
        """Write the ConfigMap as the kubelet shows it to a planner."""
        (folder / CONFIG_MAP).mkdir(parents=True)
        for file in self.files:
            (folder / CONFIG_MAP / file.name).write_bytes(file.data)

    @property
    def templates(self) -> dict[str, str]:
        """As the peers read them from a file."""
        return {"subject": self.subject, "text": self.text, "html": self.html}

    def lines(self, row: dict[str, str]) -> int:
        """CRC-32 of both bodies' lines that are not empty, and of the files, as benchmarks/sink/body.go counts it."""
        quoted = {column: html.escape(value).replace("&#x27;", "&#39;") for column, value in row.items()}
        both = filled(self.text, row) + filled(self.html, quoted)
        crc = zlib.crc32("".join(f"{line}\n" for line in both.split("\n") if line).encode())
        for file in self.files:
            crc = zlib.crc32(file.data, crc)
        return crc


def newsletter(mark: str = "", *, files: bool = False) -> Newsletter:
    """About 4 KB in ASCII; `mark` is put into each paragraph (an umlaut, say), `files` come on top."""
    logo = '<img src="cid:logo">\n' if files else ""
    lines = "".join(f"Line {i} of the newsletter{mark}, a fairly ordinary sentence.\n" for i in range(20))
    paragraphs = "".join(f"<p>Paragraph {i} of the newsletter{mark}, an ordinary sentence.</p>\n" for i in range(30))
    return Newsletter(
        subject="Hi {{ first_name }}, your {{ plan }} plan",
        text="Hello {{ first_name }},\n\nYour {{ plan }} plan renews on {{ renews }}.\n"
        f"{lines}\nUnsubscribe: https://example.com/u/{{{{ token }}}}\n",
        html=f"<html><body>\n{logo}<h1>Hello {{{{ first_name }}}}</h1>\n"
        "<p>Your <b>{{ plan }}</b> plan renews on {{ renews }}.</p>\n"
        f'{paragraphs}<a href="https://example.com/u/{{{{ token }}}}">unsubscribe</a>\n</body></html>\n',
        files=FILES if files else (),
    )


def filled(template: str, row: dict[str, str]) -> str:
    """The template with the row's values."""
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: row[found[1]], template)


def mixed(recipient: str, lines: int) -> int:
    """The hash of one message (splitmix64), as benchmarks/sink/body.go makes it."""
    z = (zlib.crc32(recipient.encode()) << 32 | lines) + 0x9E37_79B9_7F4A_7C15 & WORD
    z = (z ^ z >> 30) * 0xBF58_476D_1CE4_E5B9 & WORD
    z = (z ^ z >> 27) * 0x94D0_49BB_1331_11EB & WORD
    return z ^ z >> 31


def summed(letter: Newsletter, rows: list[tuple[str, dict[str, str]]], *, same: bool = False) -> str:
    """The sum of the hashes of all mails, as the sink says it; `same`: all have the first row's bodies."""
    first = letter.lines(rows[0][1])
    total = sum(mixed(email, first if same else letter.lines(row)) for email, row in rows)
    return f"{total & WORD:016x}"
