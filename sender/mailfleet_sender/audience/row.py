"""One recipient as the database has it now."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mailfleet_sender.message.mail import LocalCode

SIZED = (str, bytes)


class SkipReason(StrEnum):
    """Why a recipient gets no mail, though nothing failed: the `code` of a `skipped` outcome."""

    NO_ADDRESS = "NoAddress"
    INVALID_ADDRESS = "InvalidAddress"
    ADDRESS_NOT_ASCII = "AddressNotAscii"
    EXCLUDED = "Excluded"
    """The address is in one of the tables of `exclude`, decided when the campaign is planned."""
    DUPLICATE_ADDRESS = "DuplicateAddress"
    RECIPIENT_GONE = "RecipientGone"
    """Deleted, or no longer met by `match`, since the plan: the key is missing in what `Audience.rows` gives."""
    ERASED = "Erased"
    """The key itself was erased from the ledger."""


@dataclass(frozen=True, slots=True)
class Row:
    """One recipient.

    Attributes:
        key: the key column as text.
        email: as stored, without blanks around it; "" if NULL. Not checked here: `Composer.compose` does.
        values: the columns that the templates use. A NULL is left out, so that it is undefined in Jinja.
    """

    key: str
    email: str = field(repr=False)
    values: Mapping[str, object] = field(repr=False)

    @property
    def octets(self) -> int:
        """About what its large values take."""
        return sum([len(value) for value in self.values.values() if isinstance(value, SIZED)])


@dataclass(frozen=True, slots=True)
class UnusableRow:
    """A recipient whose row cannot be used: that one's `failed`, never the page's end.

    Attributes:
        code: RowTooLarge or RowUnreadable.
        detail: for people: which column; no value of the row.
    """

    key: str
    code: LocalCode
    detail: str
