"""The sink's log held against the table: who should have got mail, by a rule of the demonstration's own.

Nothing here comes from Mailfleet: neither the rule nor the log. What both find cannot be the same mistake.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ATOM = "[A-Za-z0-9!#$%&''*+/=?^_`{|}~-]+"
LABEL = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
EXPECTED = rf"""
SELECT DISTINCT ON (lower(email)) email
FROM subscribers
WHERE email ~ '^{ATOM}(\.{ATOM})*@({LABEL}\.)+[A-Za-z]{{2,}}$'
  AND length(split_part(email, '@', 1)) <= 64 AND length(email) <= 254
ORDER BY lower(email), id
"""
"""A dot-atom before the @, a host name with a top-level domain behind it (RFC 5321 4.1.2, without quoted strings and
address literals); of equal addresses, whatever their case, the row with the smallest id."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What the relay allows: permits a second, and how many may come at once."""

    per_second: float
    burst: float

    @property
    def peak(self) -> float:
        """The most that any sliding second may hold: limit and burst, and 5 % of the limit for two clocks."""
        return self.per_second * 1.05 + self.burst

    def __str__(self) -> str:
        return f"{self.per_second:g}/s"


@dataclass(frozen=True, slots=True)
class Books:
    """Both sides when all is over.

    Attributes:
        rows: in the table.
        recipients: status.recipients of the campaign.
        expected: addresses that should have got one mail each.
        accepted: (time in seconds, address) of each mail that the sink took.
    """

    rows: int
    recipients: Mapping[str, int]
    expected: frozenset[str]
    accepted: Sequence[tuple[float, str]]
    limit: Limit

    def count(self, outcome: str) -> int:
        """One term of the status."""
        return int(self.recipients.get(outcome) or 0)

    @property
    def arrived(self) -> Counter[str]:
        """Address -> mails."""
        return Counter(address for _, address in self.accepted)

    @property
    def lost(self) -> int:
        """Expected, never arrived."""
        return len(self.expected - self.arrived.keys())

    @property
    def strangers(self) -> int:
        """Arrived, not expected: invalid, or another row's duplicate in another case."""
        return len(self.arrived.keys() - self.expected)

    @property
    def duplicates(self) -> int:
        """Mails beyond the first to one address."""
        return len(self.accepted) - len(self.arrived)

    @property
    def peak(self) -> int:
        """The most mails in any second, wherever it begins."""
        return peak([at for at, _ in self.accepted])

    def faults(self) -> list[str]:
        """What does not hold, for people; empty if all does."""
        n, m = self.count("sent"), self.count("skipped")
        checks = {
            f"planned is {self.count('planned')}, the table has {self.rows} rows": self.count("planned") == self.rows,
            f"sent {n} + skipped {m} is not {self.rows}": n + m == self.rows,
            f"sent is {n}, the sink has {len(self.accepted)} mails": n == len(self.accepted),
            f"sent is {n}, the table says {len(self.expected)}": n == len(self.expected),
            f"{self.lost} addresses never got their mail": self.lost == 0,
            f"{self.strangers} addresses got a mail that they should not get": self.strangers == 0,
            f"{self.duplicates} mails were sent a second time": self.duplicates == 0,
            f"{self.peak} mails in a second, {self.limit.peak:.0f} are allowed": self.peak <= self.limit.peak,
        }
        checks |= {
            f"{outcome} is {self.count(outcome)}": self.count(outcome) == 0
            for outcome in ("failed", "suppressed", "uncertain", "cancelled", "deferred", "remaining")
        }
        return [fault for fault, holds in checks.items() if not holds]

    def last_line(self) -> str:
        """The line that says it all."""
        return (
            f"demo: planned={self.count('planned')} sent={self.count('sent')} skipped={self.count('skipped')} "
            f"failed={self.count('failed')} uncertain={self.count('uncertain')} duplicates={self.duplicates} "
            f"lost={self.lost} peak_rate={self.peak}/s limit={self.limit}"
        )


def peak(times: Sequence[float]) -> int:
    """The most events in any window of one second, its end excluded."""
    times = sorted(times)
    most = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def adds_up(recipients: Mapping[str, int]) -> bool:
    """The promise of the status: planned = the sum of all others."""
    terms = dict(recipients)
    return terms.pop("planned", 0) == sum(terms.values())
