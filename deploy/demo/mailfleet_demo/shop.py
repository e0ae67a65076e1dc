"""The shop's database: one table of subscribers, filled by COPY and read by SELECT."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, TextIO, cast

import psycopg2

from .oracle import EXPECTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .people import Person

TABLE = """
CREATE TABLE subscribers (
    id bigint PRIMARY KEY, email text, first_name text, last_name text NOT NULL, city text,
    plan text NOT NULL, unsubscribe_token text NOT NULL
)
"""
BLOCK = 1 << 16
ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class CopyText(io.TextIOBase):
    """Rows as COPY's text format, read as a file in blocks: memory does not grow with the rows."""

    def __init__(self, rows: Iterable[Person]) -> None:
        """Made as they are read."""
        self._lines = ("\t".join(map(field, row)) + "\n" for row in rows)
        self._rest = ""

    def read(self, size: int | None = BLOCK, /) -> str:
        """The next `size` characters, fewer at the end."""
        size = size or BLOCK
        text, self._rest = self._rest, ""
        while len(text) < size and (line := next(self._lines, "")):
            text += line
        text, self._rest = text[:size], text[size:]
        return text


def field(value: object) -> str:
    """One column in COPY's text format (PostgreSQL manual, COPY, "Text Format")."""
    return r"\N" if value is None else str(value).translate(ESCAPED)


class Shop:
    """A connection to the shop's database."""

    def __init__(self, url: str) -> None:
        """Connect; use it as a context manager."""
        self._connection = psycopg2.connect(url, connect_timeout=10, application_name="mailfleet-demo")

    def fill(self, rows: Iterable[Person]) -> int:
        """Make the table and fill it.

        Returns:
            how many rows it has.
        """
        with self._connection, self._connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS subscribers")
            cursor.execute(TABLE)
            cursor.copy_expert("COPY subscribers FROM STDIN", cast("TextIO", CopyText(rows)), BLOCK)
            cursor.execute("SELECT count(*) FROM subscribers")
            found = cursor.fetchone()
            assert found
            return int(found[0])

    def expected(self) -> frozenset[str]:
        """Who should get mail, by the demonstration's own rule."""
        with self._connection, self._connection.cursor() as cursor:
            cursor.execute(EXPECTED)
            return frozenset(email for (email,) in cursor)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextlib.contextmanager
def shop(url: str) -> Iterator[Shop]:
    """A `Shop` for a while."""
    found = Shop(url)
    try:
        yield found
    finally:
        found.close()
