"""Who must not have mail: looked up for each batch of rows, and again while they wait to be claimed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.errors import LedgerUnavailable
from mailfleet_sender.ledger import SUPPRESSED_CODE, suppressed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Engine

    from mailfleet_sender.ledger import AddressHasher

    from .candidate import Candidate
    from .threads import Thread

RETRY_SECONDS = 1.0

log = structlog.get_logger()


class Suppression:
    """The suppressions that hold for one campaign: those of its namespace, and the global ones."""

    def __init__(self, engine: Engine, thread: Thread, *, hasher: AddressHasher, namespace: str) -> None:
        self._engine, self._thread, self._namespace = engine, thread, namespace
        self.hash_of = hasher

    async def reasons(self, candidates: Iterable[Candidate]) -> Mapping[bytes, str]:
        """Which of their addresses are suppressed now, and why; waits the ledger out, as claims would have to."""
        hashes = list({c.address_hash for c in candidates if c.row is not None and c.address_hash})
        while hashes:
            try:
                return await self._thread.run(suppressed, self._engine, self._namespace, hashes)
            except LedgerUnavailable as error:
                log.warning("suppressions not read: trying again", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
        return {}

    @staticmethod
    def decide(candidate: Candidate, reasons: Mapping[bytes, str]) -> bool:
        """Give a candidate its verdict if it is suppressed, and take its row: it needs no permit and gets no mail.

        Returns:
            whether it was sendable until now.
        """
        reason = reasons.get(candidate.address_hash) if candidate.address_hash else None
        if reason is None or candidate.row is None:
            return False
        candidate.verdict = candidate.outcome(OutcomeKind.SUPPRESSED, code=SUPPRESSED_CODE.format(reason=reason))
        candidate.row, candidate.octets = None, 0
        return True
