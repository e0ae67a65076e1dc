"""One finished message, and why one could not be made."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class LocalCode(StrEnum):
    """Why a recipient failed before any relay was asked: the `code` of that recipient's `failed` outcome."""

    ADDRESS_INVALID = "AddressInvalid"
    """The address is none (any more), or an address that the row puts into a header is none."""
    ADDRESS_NOT_ASCII = "AddressNotAscii"
    """The address needs SMTPUTF8 (RFC 6531), which is not spoken here."""
    VALUE_MISSING = "ValueMissing"
    """A template uses a column without `default` that is NULL in this row."""
    RENDER_FAILED = "RenderFailed"
    """A template's expression failed over this row's values."""
    HEADER_TOO_LARGE = "HeaderTooLarge"
    """A header's value is longer than `headers.HEADER_OCTETS`."""
    MESSAGE_TOO_LARGE = "MessageTooLarge"
    """A rendered body is longer than `composer.BODY_CHARACTERS`."""
    ROW_TOO_LARGE = "RowTooLarge"
    """A column's value is longer than `audience.COLUMN_OCTETS`."""
    ROW_UNREADABLE = "RowUnreadable"
    """The database cannot give this row as UTF-8, or a value has no counterpart in Python (a date after 9999)."""


class Mail(NamedTuple):
    """A message that is ready for SMTP.

    Attributes:
        sender: the envelope sender (MAIL FROM), a bare ASCII address.
        recipient: the envelope recipient (RCPT TO), a bare ASCII address.
        message_id: with its angle brackets; the same for the same run and key.
        body: headers and content, lines ended by CRLF, the last one too; NOT dot-stuffed.
        eight_bit: the content holds octets over 127: MAIL FROM needs BODY=8BITMIME (RFC 6152).
    """

    sender: str
    recipient: str
    message_id: str
    body: bytes
    eight_bit: bool = False
