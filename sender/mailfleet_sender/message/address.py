"""What an e-mail address is: one conservative definition, for SQL at plan time and for Python at send time.

The dot-string form of RFC 5321 4.1.2 in ASCII, with a domain of at least two labels whose last one begins with
a letter (RFC 1123 2.1, RFC 3696 2). Not taken: quoted local parts and address literals (valid, but nobody's
real mailbox, and each of them a way to smuggle syntax into a header), and non-ASCII addresses, which need
SMTPUTF8 (RFC 6531); an internationalized domain is taken in its A-label form (xn--...).
docs/decisions/0030-addresses.md says why.

`PATTERN` is written in what Python's `re` and Postgres' advanced regular expressions have in common.
"""

from __future__ import annotations

import re

from mailfleet_sender.errors import AddressError

from .mail import LocalCode

BLANKS = " \t\r\n"
"""Taken off both ends of a stored address, nothing else is ever mended."""
LOCAL_OCTETS = 64
"""RFC 5321 4.5.3.1.1."""
ADDRESS_OCTETS = 254
"""RFC 5321 4.5.3.1.3: a path is at most 256 octets, the angle brackets among them."""

_ATOM = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[a-z0-9]+(?:-+[a-z0-9]+)*"
_LAST = r"[a-z](?:-*[a-z0-9])+"
PATTERN = rf"{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+{_LAST}"
"""The form, in small letters: for text that has no others, or for a search that takes capitals for them. Postgres needs
a third less time than with both in each class. Lengths are judged apart: a bounded repetition here makes Postgres seven
times slower (4.2 s for 0.6 s over a million addresses)."""
LONG_LABEL = r"@.*[^.]{64}"
"""A label over 63 octets (RFC 1035 2.3.4); only an address of 66 or more can hold one."""
SHORT = 66
"""Octets of the shortest address that may hold a label that is too long."""

_LONG_LABEL = re.compile(LONG_LABEL)
_COMPILED = re.compile(PATTERN, re.ASCII | re.IGNORECASE)  # ASCII: else the Kelvin sign is a k


def is_address(text: str) -> bool:
    """Whether `text` is an address as it stands (no blanks around it)."""
    return (
        len(text) <= ADDRESS_OCTETS
        and _COMPILED.fullmatch(text) is not None
        and text.index("@") <= LOCAL_OCTETS
        and (len(text) < SHORT or _LONG_LABEL.search(text) is None)
    )


def checked(text: str, *, of: str = "the recipient") -> str:
    """Give `text` back if it is an address.

    Args:
        of: whose address it is, for the error's text; the address itself is never told.

    Raises:
        AddressError: it is none, or it needs SMTPUTF8.
    """
    if is_address(text):
        return text
    if not text.isascii():
        raise AddressError(
            LocalCode.ADDRESS_NOT_ASCII,
            f"the address of {of} has characters that need SMTPUTF8, which is not spoken; write a domain as xn--...",
        )
    raise AddressError(LocalCode.ADDRESS_INVALID, f"the address of {of} is no address like name@example.com")
