"""What a pod tells with its next call: outcomes for the brake, throttling, permits that were not used. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mailfleet_sender.contract.accounts import OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(slots=True)
class Report:
    """Since the last call.

    Attributes:
        sent, failed: mails that the relay took, and that it refused for the recipient's sake.
        faults: refused for the sender's sake (5.7.x): what we are or say, not whom we write to.
        throttled: times that the relay asked us to slow down.
        exhausted: times that it said its quota is used up: nobody sends for ten minutes, then one mail to see.
        returned: permits whose mail surely was not handed over, by where they were taken from the quota.
    """

    sent: int = 0
    failed: int = 0
    faults: int = 0
    throttled: int = 0
    exhausted: int = 0
    returned: Counter[str] = field(default_factory=Counter)

    def give_back(self, taken: str, count: int = 1) -> None:
        """Permits that were not used."""
        if taken and count:
            self.returned[taken] += count

    def count(self, outcome: OutcomeKind | None, *, policy: bool, throttled: bool, exhausted: bool) -> None:
        """What the relay said of one mail."""
        self.throttled += throttled
        self.exhausted += exhausted
        if outcome is OutcomeKind.SENT:
            self.sent += 1
        elif outcome is OutcomeKind.FAILED and policy:
            self.faults += 1
        elif outcome is OutcomeKind.FAILED:
            self.failed += 1

    def arguments(self) -> list[int | str]:
        """What reserve.lua takes."""
        returned = " ".join(f"{taken}={count}" for taken, count in sorted(self.returned.items()))
        return [self.sent, self.failed, self.faults, self.throttled, self.exhausted, returned]


def wants(most: int, ready: dict[str, int]) -> Iterable[str | int]:
    """The rest of what reserve.lua takes: domains with the rows that are ready for each."""
    for name, count in ready.items():
        if count > 0:
            yield name
            yield min(most, count)
