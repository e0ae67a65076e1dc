"""What a sender counts of itself: numbers that the event loop alone changes, and that any thread may read. Pure.

Each mail is counted twice, so this is no counter of a library, which takes a lock each time (decision 0110).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.limiter import Why

if TYPE_CHECKING:
    from collections.abc import Iterable

OTHER = "other"
PROVIDERS = {
    "google": ("gmail.com", "googlemail.com"),
    "microsoft": (
        *("outlook.com", "outlook.de", "outlook.fr", "hotmail.com", "hotmail.co.uk", "hotmail.de", "hotmail.fr"),
        *("hotmail.it", "live.com", "live.co.uk", "live.de", "live.fr", "msn.com"),
    ),
    "yahoo": (
        *("yahoo.com", "yahoo.co.uk", "yahoo.co.jp", "yahoo.de", "yahoo.fr", "yahoo.it", "yahoo.es", "ymail.com"),
        *("rocketmail.com", "aol.com"),
    ),
    "apple": ("icloud.com", "me.com", "mac.com"),
}
"""Mailbox providers by the domains of their users; all other domains are one. A fixed list, for it is a label."""
_PROVIDER_OF = {domain: provider for provider, domains in PROVIDERS.items() for domain in domains}

MAILED = (OutcomeKind.SENT, OutcomeKind.FAILED, OutcomeKind.DEFERRED, OutcomeKind.UNCERTAIN)
UNMAILED = (OutcomeKind.SKIPPED, OutcomeKind.SUPPRESSED, OutcomeKind.FAILED, OutcomeKind.DEFERRED)
"""Outcomes of those of whom the relay was told, and of those of whom it was not."""
SMTP_BOUNDS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0)
COMMIT_BOUNDS = (0.005, 0.025, 0.1, 0.5, 2.5)
"""Seconds. A relay near by answers in milliseconds, one that greylists or scans in many seconds."""


class Durations:
    """How often something took how long.

    Attributes:
        bounds: upper ends of the buckets, seconds, inclusive.
        counts: in each bucket, and last those above all of them.
        seconds: their sum.
    """

    __slots__ = ("bounds", "counts", "seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.seconds = 0.0

    def took(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds


class Tally:
    """Since the process began. All keys are there from the beginning: another thread may walk through them.

    Attributes:
        messages: mails by provider and by what came of them, as the relay said.
        unmailed: recipients whose outcome was known without the relay.
        transactions: from a mail's beginning to the relay's answer.
        commits: from handing a write to the ledger's thread until it is known to be committed.
        granted, lapsed: permits given by the limiter, and those of them that were not used in time.
        waited_seconds: for which there were recipients and no permits.
        refused: answers of the limiter without a permit, by their reason.
    """

    def __init__(self) -> None:
        self.messages = {provider: {kind.value: 0 for kind in MAILED} for provider in (*PROVIDERS, OTHER)}
        self.unmailed = {kind.value: 0 for kind in UNMAILED}
        self.transactions = Durations(SMTP_BOUNDS)
        self.commits = Durations(COMMIT_BOUNDS)
        self.granted = self.lapsed = 0
        self.waited_seconds = 0.0
        self.refused = {why.value: 0 for why in Why}

    def judged(self, domain: str, kind: OutcomeKind) -> None:
        """The relay's answer decided one recipient; `domain` in lower case."""
        self.messages[_PROVIDER_OF.get(domain, OTHER)][kind.value] += 1

    def decided(self, kinds: Iterable[OutcomeKind]) -> None:
        """These were decided without the relay."""
        for kind in kinds:
            self.unmailed[kind.value] += 1
