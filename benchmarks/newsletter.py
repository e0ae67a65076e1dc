"""The mail that all senders of `bench.py` send, its recipients, and what the sink must have counted of both."""

from __future__ import annotations

import html
import re
import zlib
from dataclasses import dataclass

NAMES = ("Anna", "Bob", "Tom & Ann", "Carl")
"""First names in turn; one must be escaped in HTML."""
WORD = 0xFFFF_FFFF_FFFF_FFFF

TABLES = """
CREATE TABLE recipients (
    id bigint PRIMARY KEY, email text NOT NULL, first_name text, plan text, renews text, token text);
INSERT INTO recipients
SELECT g, 'user' || g || '@example.net', ('{{{names}}}'::text[])[1 + g % {many}], 'Gold', '2027-05-01', md5(g::text)
FROM generate_series(1, {count}) g;
CREATE TABLE peer_ledger (
    recipient bigint PRIMARY KEY, status smallint NOT NULL, code smallint, response text,
    recorded timestamptz NOT NULL DEFAULT now());
"""


def tables(count: int) -> str:
    """SQL of the recipients, and of the ledger that the peers write."""
    names = ",".join(f'"{name}"' for name in NAMES)
    return TABLES.format(names=names, many=len(NAMES), count=count)


@dataclass(frozen=True, slots=True)
class Newsletter:
    """Three templates that name columns as Jinja does, `{{ first_name }}`; lines of at most 76 characters."""

    subject: str
    text: str
    html: str

    @property
    def templates(self) -> dict[str, str]:
        """As the peers read them from a file."""
        return {"subject": self.subject, "text": self.text, "html": self.html}

    def lines(self, row: dict[str, str]) -> int:
        """CRC-32 of the lines of both bodies that are not empty, as benchmarks/sink/body.go counts it."""
        quoted = {column: html.escape(value).replace("&#x27;", "&#39;") for column, value in row.items()}
        both = filled(self.text, row) + filled(self.html, quoted)
        return zlib.crc32("".join(f"{line}\n" for line in both.split("\n") if line).encode())


def newsletter(mark: str = "") -> Newsletter:
    """About 4 KB in ASCII; `mark` is put into each paragraph (an umlaut, say)."""
    lines = "".join(f"Line {i} of the newsletter{mark}, a fairly ordinary sentence.\n" for i in range(20))
    paragraphs = "".join(f"<p>Paragraph {i} of the newsletter{mark}, an ordinary sentence.</p>\n" for i in range(30))
    return Newsletter(
        subject="Hi {{ first_name }}, your {{ plan }} plan",
        text="Hello {{ first_name }},\n\nYour {{ plan }} plan renews on {{ renews }}.\n"
        f"{lines}\nUnsubscribe: https://example.com/u/{{{{ token }}}}\n",
        html="<html><body>\n<h1>Hello {{ first_name }}</h1>\n"
        "<p>Your <b>{{ plan }}</b> plan renews on {{ renews }}.</p>\n"
        f'{paragraphs}<a href="https://example.com/u/{{{{ token }}}}">unsubscribe</a>\n</body></html>\n',
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
