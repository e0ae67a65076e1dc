"""What a run came to: the oracle's list against the ledger's books."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from books import Books, check_books

from .scene import RATE, SENDERS

if TYPE_CHECKING:
    from .scene import Hit, Scene

SHARE = RATE // SENDERS
"""One second of a sender's share of the rate: it holds two batches of permits, each of half a second of its share
(DESIGN section 5, invariant 1), whatever the machine then makes of them."""


@dataclass(frozen=True)
class Result:
    """One run of one row, as it is printed and kept.

    Attributes:
        lost: recipients of whom the ledger says sent and the oracle nothing, or the ledger nothing.
        duplicates: mails beyond the first of a recipient.
        explained: of these, those under Resend whose recipient the ledger named uncertain, one each at most.
        unexplained: the others; and mails for somebody of whom the ledger says that none was sent.
        uncertain: recipients that the ledger named uncertain at any time.
        bound: how many of these the row allows.
        recovered_seconds: from the blow (or its end, if a service was away) to the next accepted mail of the range.
        problem: why it failed, if not by these figures.
    """

    row: str
    policy: str
    seed: int
    defaults: bool
    planned: int = 0
    accepted: int = 0
    lost: int = 0
    duplicates: int = 0
    explained: int = 0
    unexplained: int = 0
    uncertain: int = 0
    bound: int = 0
    recovered_seconds: float | None = None
    to_recover_seconds: float | None = None
    seconds: float = 0.0
    samples: int = 0
    totals: dict[str, int] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    problem: str | None = None

    @property
    def over_bound(self) -> bool:
        """More in doubt than the row allows."""
        return self.uncertain > self.bound or self.explained > self.bound

    @property
    def late(self) -> bool:
        """Not sending again in time."""
        return (
            self.to_recover_seconds is not None
            and self.recovered_seconds is not None
            and self.recovered_seconds > self.to_recover_seconds
        )

    @property
    def failed(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.lost or self.unexplained or self.over_bound or self.late or self.problem)

    def as_json(self) -> dict[str, Any]:
        """For the results' file."""
        return asdict(self)


def judge(scene: Scene, *, stopped: bool, in_time: bool) -> dict[str, Any]:
    """The figures of a run that has ended.

    Args:
        scene: the run.
        stopped: the row ends with senders that refuse to go on: who remains is not lost.
        in_time: whether the time to recover is judged.
    """
    doubted = scene.doubted()  # before the oracle is read: what is named later explains nothing
    books = check_books(scene.fleet.ledger_url, scene.fleet.run)
    accepted = scene.accepted()
    recovered = _recovered(scene)
    return {
        "planned": books.totals["planned"],
        "accepted": len(accepted),
        **_compared(scene, books, Counter(m.recipient for m in accepted), doubted, stopped=stopped),
        "uncertain": len(doubted),
        "bound": bound(scene),
        "recovered_seconds": recovered,
        "to_recover_seconds": scene.timing.to_recover if in_time else None,
        "samples": scene.samples,
        "totals": books.totals,
        "figures": scene.figures,
    }


def _compared(scene: Scene, books: Books, mails: Counter[str], doubted: set[str], *, stopped: bool) -> dict[str, int]:
    explained = unexplained = lost = 0
    addresses = scene.audience
    for key, verdict in books.verdicts.items():
        count = mails.pop(addresses.get(key, ""), 0)
        if count > 1:
            fine = 1 if scene.policy == "Resend" and key in doubted else 0
            explained += fine
            unexplained += count - 1 - fine
        if verdict == "sent":
            lost += count == 0
        elif verdict in {"remaining", "deferred"}:
            lost += not stopped
            unexplained += count if key not in doubted and not stopped else 0
        elif verdict != "uncertain" and key not in doubted:
            unexplained += count
    unexplained += sum(mails.values())  # mails for nobody in the run
    missing = 0 if stopped else len(set(addresses) - set(books.verdicts))
    duplicates = sum(n - 1 for n in Counter(m.recipient for m in scene.accepted()).values())
    return {
        "lost": lost + missing, "duplicates": duplicates, "explained": explained, "unexplained": unexplained,
    }  # fmt: skip


def bound(scene: Scene) -> int:
    """How many may be in doubt: what the blows allow, and for each sender struck what it can have claimed.

    DESIGN section 5, invariant 1: at most about a second of its sending; that is, what the range sent in its busiest
    second, and never less than a second of its share of the rate, which it holds permits for.
    """
    return scene.allowed + sum(_a_second(scene, hit) for hit in scene.hits if hit.claimed)


def _a_second(scene: Scene, hit: Hit) -> int:
    keys = {address: key for key, address in scene.audience.items()}
    times = sorted(
        m.time
        for m in scene.accepted()
        if m.recipient in keys and (hit.index is None or scene.index_of(keys[m.recipient]) == hit.index)
    )
    best = first = 0
    for last, when in enumerate(times):
        while times[first] <= when - 1:
            first += 1
        best = max(best, last - first + 1)
    return max(SHARE, best)


def _recovered(scene: Scene) -> float | None:
    """The longest of the hits' times to the next accepted mail; ranges that had nothing left to send do not count.

    What a struck sender had on its way may arrive after the blow: the next mail is that of its successor.
    """
    keys = {address: key for key, address in scene.audience.items()}
    longest = None
    mails = [(m.time, scene.index_of(keys[m.recipient])) for m in scene.accepted() if m.recipient in keys]
    for hit in scene.hits:
        since = began = max(hit.at, scene.mended_at or 0.0)
        if hit.index is not None:
            taken = [t for t in scene.acquired(hit.index) if t > hit.at]
            if not taken:
                continue
            since, began = min(taken), hit.at
        later = [when for when, index in mails if when > since and hit.index in (None, index)]
        if later:
            longest = max(longest or 0.0, min(later) - began)
    return longest
