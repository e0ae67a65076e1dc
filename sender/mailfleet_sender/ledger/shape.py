"""Which shapes of the ledger this version can work with (docs/decisions/0135).

A revision is called by its number, as 0009. Migrations only add, so an older version goes on with a newer shape. One
that takes away what an earlier version uses is called with the next number of a contract behind it, as 0012.2, and so
is every one after it: versions that know an earlier contract alone refuse to begin.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mailfleet_sender.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

_REVISION = re.compile(r"(?P<number>[0-9]{4})(\.(?P<contract>[0-9]{1,3}))?")


def parts(revision: str) -> tuple[int, int] | None:
    """Number and contract of a revision; None if it is not called as one."""
    found = _REVISION.fullmatch(revision)
    return (int(found["number"]), int(found["contract"] or 1)) if found else None


def must_migrate(has: str | None, known: Sequence[str]) -> bool:
    """Whether a ledger must be migrated before this version works with it; False too if a newer version has done more.

    Args:
        has: its revision; None: it was never migrated.
        known: the revisions that this version knows, oldest first.

    Raises:
        SettingsError: this version cannot work with it; the message says what to do.
    """
    newest = known[-1]
    if has is None or has in known:
        return has != newest
    theirs, ours = parts(has), parts(newest)
    if theirs is None or ours is None or theirs[0] <= ours[0]:
        raise SettingsError(f"the ledger's shape {has} is none of Mailfleet's: is it the right database?")
    if theirs[1] != ours[1]:
        raise SettingsError(
            f"the ledger's shape is {has}, made by a newer version that took away what this one needs (it knows "
            f"{newest}): install that version again, or one that knows contract {theirs[1]}"
        )
    return False
