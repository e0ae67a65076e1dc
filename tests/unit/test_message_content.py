"""Bodies: any text arrives as it was, on any server."""

from __future__ import annotations

import base64
import quopri

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailfleet_sender.message import content

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
HOSTILE = st.lists(
    st.sampled_from(
        ["\r", "\n", "\r\n", ".", "\n.\r\n", "--=_b", "--=_b--", "\0", " ", "\t", "é", "=", "From ", "x" * 999]
    )
    | TEXT
).map("".join)
DECODE = {"7bit": bytes, "8bit": bytes, "base64": base64.b64decode, "quoted-printable": quopri.decodestring}


@given(HOSTILE, st.booleans())
@example("x" * 998, False)
@example("x" * 999, False)
@example("é" * 499, True)
@example("é" * 500, True)
@example("a \n b\t\n.", False)
def test_decodes_to_exactly_the_text_with_its_newlines_as_crlf(text: str, eight_bit: bool) -> None:
    data = content.crlf(text)
    encoding, written = content.encode(data, eight_bit=eight_bit, boundary=b"=_b")
    assert DECODE[encoding](written) == data
    assert b"=_b" not in written
    assert not set(written.replace(b"\r\n", b"")) & {10, 13, 0}
    assert all(len(line) <= 998 for line in written.split(b"\r\n"))
    if not eight_bit:
        assert written.isascii()


@given(HOSTILE)
def test_newlines_become_crlf_and_nothing_else_changes(text: str) -> None:
    data = content.crlf(text).decode()
    assert data.replace("\r\n", "\n") == text.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize(
    ("text", "eight_bit", "encoding"),
    [
        ("plain", True, "7bit"),
        ("plain", False, "7bit"),
        ("Zoë " * 3, True, "8bit"),
        ("A letter to Zoë", False, "quoted-printable"),
        ("日本語のメール", False, "base64"),
        ("x" * 999, True, "quoted-printable"),
        ("a=_bz", True, "base64"),
        ("\0", True, "base64"),
    ],
)
def test_takes_the_plainest_encoding_that_works(text: str, eight_bit: bool, encoding: str) -> None:
    assert content.encode(content.crlf(text), eight_bit=eight_bit, boundary=b"=_b").encoding == encoding


def test_the_mark_of_boundaries_belongs_to_the_run() -> None:
    assert content.mark_of("a/b/1") == content.mark_of("a/b/1") != content.mark_of("a/b/2")
    assert len(content.mark_of("a/b/1")) == 32


@given(st.lists(st.integers(0, 1_100) | st.integers(990, 1_005), max_size=8))
@example([998, 998, 998])
@example([0, 999, 0])
@example([998, 999, 5])
def test_lines_of_998_octets_stay_and_longer_ones_do_not(lengths: list[int]) -> None:
    data = b"\r\n".join(b"x" * length for length in lengths)
    encoding = content.encode(data, eight_bit=True, boundary=b"=_b").encoding
    assert (encoding == "7bit") == (max(lengths, default=0) <= 998)
