"""One recipient on the way through a sender."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.ledger import Outcome

if TYPE_CHECKING:
    from datetime import datetime

    from mailfleet_sender.audience import Row
    from mailfleet_sender.contract.campaign import Retry

DOMAIN_LIMIT = "DomainLimit"
"""The code of a deferral that our own limit is the reason of."""


@dataclass(slots=True)
class Candidate:
    """A position of the range with what is known of it.

    Attributes:
        position: 0-based index within the range.
        key: the recipient's key as text.
        attempt: this attempt's number, from 1.
        since: when the recipient was first deferred (None: never).
        row: the recipient's row, or None when the verdict is known without sending.
        verdict: the outcome when it is known without sending (row gone, row too large).
        address_hash: keyed hash of the row's address; None where no address is known.
        tries: how often a transaction for it ended before its dot.
        waits: how often the relay put it off (421, throttling).
        passed: the cursor is past it, unclaimed: given back by a predecessor, or it waits for its domain.
        octets: about what its row's large values take.
    """

    position: int
    key: str
    attempt: int
    since: datetime | None
    row: Row | None = None
    verdict: Outcome | None = None
    address_hash: bytes | None = None
    tries: int = 0
    waits: int = 0
    passed: bool = False
    octets: int = 0

    @property
    def domain(self) -> str:
        """What follows the @ of its address, in lower case; "" without a row."""
        return self.row.email.rpartition("@")[2].lower() if self.row else ""

    def put_off(self, retry: Retry) -> None:
        """Its domain takes no more for now: deferred, though nothing was tried, so no attempt is charged."""
        self.attempt -= 1
        self.verdict = self.outcome(
            OutcomeKind.DEFERRED, code=DOMAIN_LIMIT, retry_after_seconds=retry.initial_delay_seconds
        )

    def outcome(
        self,
        kind: OutcomeKind,
        *,
        code: str | None = None,
        enhanced: str | None = None,
        reply: str | None = None,
        relay_queue_id: str | None = None,
        retry_after_seconds: int | None = None,
        since: datetime | None = None,
        after_dot: bool = False,
        suppress: bool = False,
    ) -> Outcome:
        """This recipient's outcome."""
        return Outcome(
            position=self.position,
            key=self.key,
            kind=kind,
            attempt=self.attempt,
            code=code,
            enhanced=enhanced,
            reply=reply,
            relay_queue_id=relay_queue_id,
            retry_after_seconds=retry_after_seconds,
            since=since or self.since,
            address_hash=self.address_hash,
            after_dot=after_dot,
            suppress=suppress,
        )
