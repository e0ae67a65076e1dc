"""Header fields: nothing that a recipient's row holds can end a field or begin another one.

Two kinds of value: an address, which is parsed and checked (`mailbox`), and text (`unstructured`), which is
written plainly if it is printable ASCII and in RFC 2047 words otherwise. Control characters in text, CR and LF
among them, become one space: they arrive as data that a person can read (docs/decisions/0031-header-values.md).
"""

from __future__ import annotations

import binascii
import re
from functools import lru_cache
from urllib.parse import quote

from mailfleet_sender.errors import AddressError, RenderError

from .address import BLANKS, checked
from .mail import LocalCode

HEADER_OCTETS = 8_192
"""The longest value in UTF-8. Relays cut or refuse long header blocks (Postfix: header_size_limit 102400)."""
LINE_OCTETS = 76
"""Lines are folded here (RFC 5322 2.1.1 asks for 78 at most, RFC 2047 2 for 76)."""
HARD_LINE_OCTETS = 998
"""RFC 5322 2.1.1, without the CRLF."""
WORD_OCTETS = 45
"""UTF-8 octets in one encoded word: 60 characters of base64 and 12 around them (RFC 2047 2: at most 75)."""

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_PLAIN = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_PIECE = re.compile(r" *[^ ]+")
_MAILBOX = re.compile(r"(?P<name>.*?)[ \t]*<(?P<address>[^<>]*)>", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_ATOMS = re.compile(rf"{_ATOM}(?: {_ATOM})*")
_TOKEN = re.compile(r"[!-9;-~]{1,70}")

# Kept as they are in a URI: reserved, unreserved (RFC 3986 2.2, 2.3) and "%"; the rest becomes %XX, so that
# no value can leave the angle brackets of List-Unsubscribe.
_URI_SAFE = ":/?#[]@!$&'()*+;=-._~%"
_NEEDS_NO_QUOTES = re.compile(rf"[a-zA-Z0-9{re.escape(_URI_SAFE)}]+")

RESERVED = frozenset(
    {
        "bcc", "cc", "date", "dkim-signature", "from", "list-id", "list-unsubscribe", "list-unsubscribe-post",
        "message-id", "mime-version", "received", "reply-to", "return-path", "sender", "subject", "to",
    }
)  # fmt: skip
"""Fields that this project writes itself, or that would change who gets the mail."""


def check_name(name: str) -> None:
    """Refuse a field name that is none (RFC 5322 2.2) or that is written here anyway.

    Raises:
        ValueError: with the remedy.
    """
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name[:40]!r} is no header name: printable ASCII without blanks and colons")
    lower = name.lower()
    if lower in RESERVED or lower.startswith(("content-", "resent-")):
        raise ValueError(f"the header {name} cannot be set here: it has a field of its own or is written by Mailfleet")


def one_line(text: str) -> str:
    """`text` with every run of control characters (CR, LF, TAB, NUL, NEL, ...) turned into one space, and trimmed."""
    return _CONTROLS.sub(" ", text).strip()


def encoded_words(text: str, *, used: int = 0) -> list[str]:
    """RFC 2047 words of at most 75 characters, B encoding, none of which cuts a character in two (section 5).

    Args:
        used: characters that already stand on the first word's line, the blank before the word among them.
    """
    # A word is 12 characters around base64, which writes 4 for 3; at least one character of 4 octets must fit.
    room = min(WORD_OCTETS, max((LINE_OCTETS - used - 12) // 4 * 3, 6))
    data, words, start = text.encode(), [], 0
    while start < len(data):
        end = min(start + room, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        words.append(f"=?utf-8?b?{binascii.b2a_base64(data[start:end], newline=False).decode()}?=")
        start, room = end, WORD_OCTETS
    return words


def unstructured(name: str, text: str, *, longest_word: int = LINE_OCTETS - 1) -> str:
    """One whole field, CRLF at its end, for any text.

    Args:
        name: a field name, already checked.
        text: anything; see the module's text for what becomes of control characters.
        longest_word: a longer piece without blanks is written in encoded words, because it cannot be folded.
            Fields that machines read (X-...) give `HARD_LINE_OCTETS` less their name instead.

    Raises:
        RenderError: HeaderTooLarge.
    """
    if text.isascii() and text.isprintable():  # ASCII that prints: space to tilde, so no controls
        text = text.strip(" ")
        if len(name) + 2 + len(text) <= LINE_OCTETS and "=?" not in text:
            return f"{name}: {text}\r\n"
    else:
        text = one_line(text)
    if len(text) * 4 > HEADER_OCTETS and len(text.encode()) > HEADER_OCTETS:
        raise RenderError(LocalCode.HEADER_TOO_LARGE, f"the header {name} is longer than {HEADER_OCTETS} octets")
    # "=?" in plain text would be read as an encoded word that the sender never wrote.
    if not text or (_PLAIN.fullmatch(text) and "=?" not in text):
        if len(name) + 2 + len(text) <= LINE_OCTETS:
            return f"{name}: {text}\r\n"
        pieces = _PIECE.findall(text)
        if max(map(len, pieces)) <= longest_word:
            return f"{name}:{_fold(len(name) + 1, [f' {pieces[0]}', *pieces[1:]])}\r\n"
    return f"{name}:{_fold(len(name) + 1, [f' {word}' for word in encoded_words(text, used=len(name) + 2)])}\r\n"


def _fold(used: int, pieces: list[str]) -> str:
    """Join pieces that each begin with a blank; a line that would be too long begins anew before that blank."""
    out: list[str] = []
    for piece in pieces:
        if used + len(piece) > LINE_OCTETS and out:
            out.append("\r\n")
            used = 0
        out.append(piece)
        used += len(piece)
    return "".join(out)


def mailbox(text: str, *, of: str) -> tuple[str, str]:
    """Read `Name <address>` or `address`.

    Everything before the last "<" is the name, whatever it holds: a name out of a recipient's row stays a name.

    Returns:
        the name ("" if there is none) and the address.

    Raises:
        AddressError: the address is none.
    """
    text = text.strip(BLANKS)
    if not (found := _MAILBOX.fullmatch(text)):
        return "", checked(text, of=of)
    name = found["name"]
    if quoted := _QUOTED.fullmatch(name.strip(BLANKS)):
        name = re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)
    # Readers take runs of blanks in a name for one (RFC 5322 3.2.2), so it is written that way.
    return re.sub(" +", " ", one_line(name)), checked(found["address"].strip(BLANKS), of=of)


@lru_cache(maxsize=16)  # From is the same in most mails
def address_field(name: str, display: str, address: str) -> str:
    """A field with one mailbox, for example `From: Example Shop <news@example.com>`.

    Raises:
        RenderError: HeaderTooLarge.
    """
    if not display:
        return f"{name}: {address}\r\n"
    if len(display) * 4 > HEADER_OCTETS and len(display.encode()) > HEADER_OCTETS:
        raise RenderError(LocalCode.HEADER_TOO_LARGE, f"the name in {name} is longer than {HEADER_OCTETS} octets")
    room = LINE_OCTETS - len(name) - 4
    if display.isascii() and "=?" not in display and len(display) <= room:
        if _ATOMS.fullmatch(display):
            words = [f" {display}"]
        else:
            escaped = display.replace("\\", "\\\\").replace('"', '\\"')
            words = [f' "{escaped}"'] if len(escaped) <= room else []
    else:
        words = []
    words = words or [f" {word}" for word in encoded_words(display, used=len(name) + 2)]
    return f"{name}:{_fold(len(name) + 1, [*words, f' <{address}>'])}\r\n"


def uri(text: str, *, schemes: tuple[str, ...]) -> str:
    """A URI for an angle-bracketed field; characters that no URI holds are percent-encoded (as UTF-8).

    Raises:
        RenderError: it has none of these schemes, or does not fit a line.
    """
    encoded = text if _NEEDS_NO_QUOTES.fullmatch(text) else quote(text.strip(BLANKS), safe=_URI_SAFE)
    if not encoded.lower().startswith(schemes):
        raise RenderError(
            LocalCode.RENDER_FAILED, f"the unsubscribe address does not begin with {' or '.join(schemes)}"
        )
    if len(encoded) > HARD_LINE_OCTETS - 30:
        raise RenderError(LocalCode.HEADER_TOO_LARGE, "the unsubscribe address does not fit a header line")
    return encoded


def list_unsubscribe(targets: list[str], *, one_click: bool) -> str:
    """List-Unsubscribe (RFC 2369 3.2) and, for `one_click`, List-Unsubscribe-Post (RFC 8058 3.1).

    RFC 8058 wants an https URI; without one the second field is left out.
    """
    if len(targets) == 1:  # the first piece of a field is never folded
        field = f"List-Unsubscribe: <{targets[0]}>\r\n"
    else:
        field = f"List-Unsubscribe:{_fold(17, [f' <{t}>{comma}' for t, comma in _separated(targets)])}\r\n"
    if one_click and any(t.lower().startswith("https:") for t in targets):
        field += "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    return field


def _separated(targets: list[str]) -> list[tuple[str, str]]:
    return [(t, "," if n < len(targets) else "") for n, t in enumerate(targets, 1)]


__all__ = ["AddressError", "address_field", "check_name", "list_unsubscribe", "mailbox", "unstructured", "uri"]
