"""Bodies: any text becomes a MIME part that decodes to exactly that text, on any server."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import NamedTuple

LINE_OCTETS = 998
"""RFC 5322 2.1.1, RFC 5321 4.5.3.1.6: without the CRLF."""
_ASCII = bytes(range(128))


class Encoded(NamedTuple):
    """A body as it stands in the message: its Content-Transfer-Encoding and its octets (lines end in CRLF)."""

    encoding: str
    data: bytes


def crlf(text: str) -> bytes:
    """UTF-8 with CRLF for each CRLF, CR or LF: a bare CR or LF never reaches a server.

    A lone LF-dot-LF ends the message for some servers, and the lines after it are then SMTP commands.

    Raises:
        UnicodeEncodeError: a lone surrogate (JSON can hold one).
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("\n", "\r\n").encode()


def encode(data: bytes, *, eight_bit: bool, boundary: bytes) -> Encoded:
    """Choose the plainest transfer encoding that carries `data` unharmed (RFC 2045 6).

    Args:
        data: what `crlf` gave.
        eight_bit: the server has 8BITMIME (RFC 6152).
        boundary: what all boundaries of the message hold; a body that holds it is written in base64, where it
            cannot stand.
    """
    ascii_only = data.isascii()
    if boundary in data or b"\0" in data:
        return Encoded("base64", base64_lines(data))
    if (ascii_only or eight_bit) and _lines_fit(data):
        return Encoded("7bit" if ascii_only else "8bit", data)
    # Quoted-printable writes three octets for each that is not ASCII, base64 four for any three.
    if not ascii_only and len(data.translate(None, _ASCII)) * 6 > len(data):
        return Encoded("base64", base64_lines(data))
    return Encoded("quoted-printable", _quoted_printable(data))


def _lines_fit(data: bytes) -> bool:
    """Whether no line is too long. Goes from line start to the last line start in reach, not from line to line."""
    start = 0
    while len(data) - start > LINE_OCTETS:
        start = data.rfind(b"\r\n", start, start + LINE_OCTETS + 2) + 2
        if start == 1:
            return False
    return True


def base64_lines(data: bytes) -> bytes:
    """Base64 in lines of 76 (RFC 2045 6.8), without the last CRLF."""
    return base64.encodebytes(data).replace(b"\n", b"\r\n").removesuffix(b"\r\n")


def _quoted_printable(data: bytes) -> bytes:
    # binascii writes soft line breaks in the style of the first newline it sees, so it is given one style only.
    return binascii.b2a_qp(data.replace(b"\r\n", b"\n"), istext=True).replace(b"\n", b"\r\n")


def mark_of(run_key: str) -> str:
    """What the boundaries of a run hold whose plan drew none: 32 digits, the same each time."""
    return hashlib.blake2b(run_key.encode(), digest_size=16, person=b"boundary").hexdigest()
