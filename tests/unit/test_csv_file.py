"""CSV files of recipients: what Python's csv module writes is read back; what is faulty is named by its line."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mailfleet_sender.audience import CsvFile
from mailfleet_sender.audience.csv_file import FAULTS, FIELD_OCTETS, ROW_OCTETS
from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterable

FIELDS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20) | st.sampled_from(
    ['"', '""', ",", "\r\n", "\n", "\r", " ", "=1+1", "\ufeff", "\x85", "\u2028"]
)
TABLES = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(FIELDS, min_size=width, max_size=width), max_size=8).map(lambda rows: (width, rows))
)


def read(octets: bytes) -> tuple[tuple[str, ...], list[tuple[int, list[str]]]]:
    file = CsvFile(io.BytesIO(octets))
    return file.columns, [(line, fields) for line, fields in file.rows()]


def faults(octets: bytes) -> str:
    with pytest.raises(PlanError) as caught:
        read(octets)
    assert caught.value.reason is ReportReason.CSV_INVALID
    assert len(caught.value.message.encode()) <= 256
    assert caught.value.message.startswith("recipients.csv: ")
    return caught.value.message


def written(rows: Iterable[list[str]], quoting: int, end: str) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=quoting, lineterminator=end).writerows(rows)
    return text.getvalue()


@given(
    TABLES,
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_what_the_csv_module_writes_is_read_back_with_its_lines(
    table: tuple[int, list[list[str]]], quoting: int, end: str, marked: bool
) -> None:
    width, rows = table
    # Python 3.11 leaves a lone CR bare where lines end by LF alone, and then cannot read it back itself.
    assume(end == "\r\n" or quoting == csv.QUOTE_ALL or not any("\r" in field for row in rows for field in row))
    header = [f"c{n}" for n in range(width)]
    text = written([header, *rows], quoting, end)
    columns, found = read((b"\xef\xbb\xbf" if marked else b"") + text.encode())
    assert columns == tuple(header)
    assert [fields for _, fields in found] == rows
    # A row's line is where an editor shows it: counted by the line feeds before it.
    assert [line for line, _ in found] == [
        1 + written([header, *rows[:n]], quoting, end).count("\n") for n in range(len(rows))
    ]


def test_formulas_blanks_and_markup_are_just_text() -> None:
    row = ['=HYPERLINK("http://x","y")', "@SUM(1)", " a ", "<b>{{ 7 }}</b>", "+49 123"]
    assert read(written([list("abcde"), row], csv.QUOTE_MINIMAL, "\n").encode())[1] == [(2, row)]


def test_empty_lines_are_no_rows_and_the_last_line_needs_no_end() -> None:
    assert read(b"a,b\n\n1,2\r\n\r\n3,4")[1] == [(3, ["1", "2"]), (5, ["3", "4"])]


def test_blanks_around_the_names_of_columns_do_not_count() -> None:
    assert read(b" email , first_name\n")[0] == ("email", "first_name")


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (b"", ["the file is empty"]),
        (b"\n\n", ["the file is empty"]),
        (b"email,\n", ["line 1: column 2 has no name"]),
        (b"\na,b,a\n", ["line 2: the columns 1 and 3 have the same name 'a'"]),
        (b"a" * 101, ["column 1 is longer than 100"]),
        (b",".join(b"c%d" % n for n in range(501)), ["501 columns: at most 500"]),
        (b"a,b\n1,2\n3\n4,5,6\n", ["2 rows", "line 3 has 1 field, the header 2; line 4 has 3 fields, the header 2"]),
        (b"a,b\n1,\xff\n", ["1 row cannot", "line 2 is not UTF-8"]),
        ("a,b\n1,ä\n".encode("latin-1"), ["line 2 is not UTF-8"]),
        ("a,b\n1,2\n".encode("utf-16"), ["line 1 is not UTF-8"]),
        (b"a,b\n1,\0\n", ["line 2 holds a NUL character"]),
        (b'a,b\n1,"2\n3,4\n', ["line 2 begins a quoted field that is never closed"]),
        (b'a,b\n1,"2"x\n3,4\n5\n', ["2 rows", "line 2 has text after a closing quote", "line 4 has 1 field"]),
        (b"a,b\r1,2\r", ["ended by CR alone"]),
        (b'"a,b\n1,2\n', ["line 1 begins a quoted field"]),
        (b"a,b\n" + b"1\n" * 5, ["5 rows", "line 2 has", "line 4 has", "also line 5, 6"]),
        (b"a,b\n" + b"1\n" * 8, ["8 rows", "also line 5, 6, 7, ..."]),
        (b"a,b\n" + b"1\n" * 5_000, [f"{FAULTS} or more rows"]),
    ],
)
def test_faults_are_named_by_their_lines(octets: bytes, words: list[str]) -> None:
    said = faults(octets)
    assert all(word in said for word in words), said


class Endless:
    """A file without an end: so much was asked of it at most at once, and so much was read."""

    def __init__(self, begin: bytes, line: bytes) -> None:
        self.begin, self.line, self.read = begin, line, 0

    def readline(self, limit: int, /) -> bytes:
        line, self.begin = self.begin or self.line, b""
        self.read += min(limit, len(line))
        assert self.read <= 2 * ROW_OCTETS + 2
        return line[:limit]


@pytest.mark.parametrize(
    ("begin", "line"),
    [
        (b'a,"', b"x" * 1000 + b"\n"),
        (b"a,b\n", b"x" * (2 * ROW_OCTETS)),
        (b"a,b\n", b'1,"' + b"x" * (FIELD_OCTETS + 1) + b'"\n'),
        (b"a,b\n", b'1,"' + b"x" * 1000 + b"\n"),
        (b"a,b\n", b"1\n"),
    ],
)
def test_whatever_comes_without_an_end_is_given_up_soon(begin: bytes, line: bytes) -> None:
    endless = Endless(begin, line)
    with pytest.raises(PlanError, match=r"is a quote not closed\?|100 or more"):
        for _ in CsvFile(endless).rows():
            pass
