"""The verb `erase`: forget persons by their addresses. What was counted stays counted."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import structlog

from .contract.environment import Exit
from .errors import LedgerUnavailable
from .ledger import AddressHasher, load_address_key, open_ledger
from .ledger.erasure import erase as erase_hashes
from .suppressing import hashes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

log = structlog.get_logger()


def erase(addresses: Sequence[str], ledger_url: str) -> Exit:
    """Erase whoever has one of these addresses.

    Raises:
        SettingsError: one of them is none; nothing was changed.
    """
    engine = open_ledger(ledger_url, application_name="mailfleet-erase")
    try:
        hashes = hashes_of(AddressHasher(load_address_key(engine)), addresses)
        sys.stdout.write(f"{erase_hashes(engine, hashes, addresses)} erased\n")
    except LedgerUnavailable as error:
        log.warning("the ledger does not answer: run the same again", error=str(error))
        return Exit.INTERRUPTED
    finally:
        engine.dispose()
    return Exit.DONE
