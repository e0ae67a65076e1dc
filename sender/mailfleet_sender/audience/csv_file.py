"""A CSV file of recipients, read row by row: strict, in constant memory, every fault with the number of its line.

The form is RFC 4180's: commas, double quotes, lines ended by CRLF or LF; UTF-8, with or without a byte order mark.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.errors import PlanError
from mailfleet_sender.message.address import BLANKS

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELD_OCTETS = 1_048_576
"""The longest field, in characters, and the longest line's share of a row; what a table's column may hold too."""
ROW_OCTETS = 4 * FIELD_OCTETS
"""The longest row. A quote that is never closed ends here instead of in memory."""
COLUMNS = 500
HEADER_LENGTH = 100
"""Characters of a column's name."""
FAULTS = 100
"""So many faulty rows end the reading: it is another file than was meant."""
NAMED = 3
"""Faulty rows whose lines a message names."""


class Lines(Protocol):
    """What is read: octets, line by line."""

    def readline(self, limit: int, /) -> bytes:
        """The next line, with its end; at most so many octets; nothing at the file's end."""


class CsvRow(NamedTuple):
    """One recipient: the number of the line on which its row begins (the header's is 1), and its fields."""

    line: int
    fields: list[str]


class CsvFile:
    """One file, read once from its beginning.

    Attributes:
        columns: the header, blanks around its names taken off.
    """

    def __init__(self, octets: Lines) -> None:
        """Read the header.

        Raises:
            PlanError: CsvInvalid, there is none that can be used; or what `octets` raises.
        """
        self._octets = octets
        self._line = 0
        self._row_octets = 0
        self._trouble = ""
        self._faults: list[tuple[int, str]] = []
        csv.field_size_limit(FIELD_OCTETS)
        self._reader = csv.reader(self._texts(), strict=True)
        self.columns = self._header()

    def rows(self) -> Iterator[CsvRow]:
        """All rows; empty lines are no rows.

        Raises:
            PlanError: CsvInvalid, once everything was read: how many rows cannot be used, with the first ones' lines.
        """
        width = len(self.columns)
        while (row := self._next()) is not None:
            if len(row.fields) == width:
                yield row
            else:
                fields = f"{len(row.fields)} field{'s' * (len(row.fields) != 1)}"
                self._fault(row.line, f"has {fields}, the header {width}")
        if self._faults:
            self._give_up()

    def _header(self) -> tuple[str, ...]:
        first = self._next()
        if self._faults:
            self._give_up()
        if first is None:
            raise _invalid("the file is empty: its first line names the columns, as email,first_name")
        names = tuple(name.strip(BLANKS) for name in first.fields)
        where = f"line {first.line}"
        if len(names) > COLUMNS:
            raise _invalid(f"{where} names {len(names)} columns: at most {COLUMNS} can be used")
        for n, name in enumerate(names, 1):
            if not name:
                raise _invalid(
                    f"{where}: column {n} has no name: the first line names the columns, as email,first_name"
                )
            if len(name) > HEADER_LENGTH:
                raise _invalid(f"{where}: the name of column {n} is longer than {HEADER_LENGTH} characters")
            if names.index(name) != n - 1:
                raise _invalid(f"{where}: the columns {names.index(name) + 1} and {n} have the same name {name!r}")
        return names

    def _next(self) -> CsvRow | None:
        """The next row that could be parsed; None: there is none."""
        while True:
            self._row_octets, self._trouble = 0, ""
            begins = self._line + 1
            try:
                fields = next(self._reader, None)
            except csv.Error as error:
                self._parse_fault(begins, str(error))
                continue
            if fields is None:
                return None
            if self._trouble:
                self._fault(begins, self._trouble)
            elif fields:
                return CsvRow(begins, fields)

    def _texts(self) -> Iterator[str]:
        """The lines as text, for the parser; a row that is too long ends the reading."""
        while octets := self._octets.readline(ROW_OCTETS + 1):
            self._line += 1
            self._row_octets += len(octets)
            if self._row_octets > ROW_OCTETS:
                self._endless(self._line)
            if self._line == 1:
                octets = octets.removeprefix(b"\xef\xbb\xbf")
            if b"\0" in octets:
                self._trouble = "holds a NUL character"
            try:
                yield octets.decode()
            except UnicodeDecodeError:
                self._trouble = "is not UTF-8"
                yield octets.decode("utf-8", "replace")

    def _parse_fault(self, line: int, words: str) -> None:
        if "field limit" in words:
            self._endless(line)
        if "unexpected end" in words:
            self._faults.append(
                (line, 'begins a quoted field that is never closed: end it with ", write "" for a quote')
            )
            self._give_up()
        if "new-line character" in words:
            self._faults.append((line, "has lines ended by CR alone: save the file with LF or CRLF"))
            self._give_up()
        self._fault(line, 'has text after a closing quote: write "" for a quote within a quoted field')

    def _endless(self, line: int) -> None:
        self._faults.append((line, f"is longer than {FIELD_OCTETS} characters a field: is a quote not closed?"))
        self._give_up()

    def _fault(self, line: int, what: str) -> None:
        self._faults.append((line, what))
        if len(self._faults) >= FAULTS:
            self._give_up()

    def _give_up(self) -> None:
        """Say what is wrong with the first faulty rows.

        Raises:
            PlanError: always.
        """
        count = len(self._faults)
        said = "; ".join(f"line {line} {what}" for line, what in self._faults[:NAMED])
        if count > NAMED:
            lines = ", ".join(str(line) for line, _ in self._faults[NAMED : 2 * NAMED])
            said += f"; also line {lines}" + ", ..." * (count > 2 * NAMED)
        number = f"{count} or more" if count >= FAULTS else str(count)
        raise _invalid(f"{number} row{'s' * (count != 1)} cannot be used: {said}")


def _invalid(what: str) -> PlanError:
    return PlanError(ReportReason.CSV_INVALID, f"recipients.csv: {what}")
