"""What the ledger takes and gives: plain values, no database behind them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mailfleet_sender.contract.accounts import OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from mailfleet_sender.contract.accounts import RunState, WaveKind
    from mailfleet_sender.contract.campaign import OnUncertain

PAGE_SIZE = 500
"""Keys of a full page. Every page of a range but its last is full, so a position finds its page by division."""
SKIPPED_WAVE = -1
"""`page.wave` of the keys that the plan decided to skip: one reason a page."""
MAIN_PAGES = 0
"""`page.wave` of the audience; a Retry wave's pages bear the wave's own number."""


def pages_of_step(step: int) -> int:
    """`page.wave` of a canary step's part of the audience: -2 for step 1, and so on; for 0, the rest, MAIN_PAGES."""
    return SKIPPED_WAVE - step if step else MAIN_PAGES


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a lease lasts, in seconds. One setting for the whole installation: takeovers judge by it.

    Attributes:
        lease_seconds: what each write of an owner renews its lease to.
        margin_seconds: an owner stops SMTP this long before its lease ends.
        clock_slack_seconds: a lease that ends later than lease + slack from now is a clock step: it has ended.
        idle_seconds: how long an idle transaction of ours may live, so that a frozen sender frees its range.
        statement_seconds: limit of one statement.
        lock_seconds: limit of one wait for a lock.
        backoff_seconds: longest pause between two tries while the ledger is away.
    """

    lease_seconds: float = 15.0
    margin_seconds: float = 5.0
    clock_slack_seconds: float = 1.0
    idle_seconds: float = 5.0
    statement_seconds: float = 30.0
    lock_seconds: float = 10.0
    backoff_seconds: float = 2.0


class Outcome(NamedTuple):
    """What became of one position.

    Attributes:
        position: 0-based index within the range.
        key: the recipient's key as text ('' or None: erased).
        kind: sent, failed, suppressed, skipped, deferred or uncertain.
        attempt: which attempt this was, from 1.
        code: the SMTP code or a local code such as RecipientGone.
        enhanced: the enhanced status code (RFC 3463).
        reply: the relay's words, addresses already replaced by <recipient>.
        relay_queue_id: the relay's name for the accepted message.
        retry_after_seconds: deferred only: the next attempt is due that much later.
        since: deferred only: when this recipient was first deferred (None: now).
        address_hash: keyed hash of the address (HMAC-SHA-256), for suppression, tracing and erasure.
        after_dot: the relay had the whole message before it refused it or put it off.
        suppress: the address does not exist: the run's namespace does not try it again.
    """

    position: int
    key: str | None
    kind: OutcomeKind
    attempt: int = 1
    code: str | None = None
    enhanced: str | None = None
    reply: str | None = None
    relay_queue_id: str | None = None
    retry_after_seconds: int | None = None
    since: datetime | None = None
    address_hash: bytes | None = None
    after_dot: bool = False
    suppress: bool = False

    @property
    def handed_over(self) -> bool:
        """Whether it counts as usage of the relay: the relay had, or may have had, the whole message."""
        return self.after_dot or self.kind in {OutcomeKind.SENT, OutcomeKind.UNCERTAIN}


class PageKey(NamedTuple):
    """A position with its key (None: erased), the attempts already made and when it was first deferred."""

    position: int
    key: str | None
    attempt: int
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Leased:
    """Somebody else's lease holds for that many more seconds, by the database's clock."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The range is Finished or Closed, or a Repair wave has taken it over: nothing to do under this index."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A planner's fresh number: what it writes is invisible until `Planner.publish`."""

    run: int
    number: int
    definition_hash: str


WITHIN_ARRAY = str.maketrans({"\\": "\\\\", '"': '\\"'})
"""For `str.translate`: an element of an array's text form, between double quotes (PostgreSQL documentation, 8.15.6)."""
_KEYS = re.compile(r'"((?:[^"\\]|\\.)*)"|([^{},"]+)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class KeyArray:
    """Keys in the text form of a Postgres text[], on their way from one server to another, unread.

    Taking ten million keys apart and quoting them again would cost more than finding them.

    Attributes:
        literal: what array_out wrote, and array_in reads (PostgreSQL documentation, 8.15.6).
        count: how many keys it holds; the ledger counts them again before it publishes.
    """

    literal: str
    count: int

    @classmethod
    def of(cls, keys: Sequence[str]) -> KeyArray:
        """From keys that this program knows."""
        quoted = (f'"{key.translate(WITHIN_ARRAY)}"' for key in keys)
        return cls(f"{{{','.join(quoted)}}}", len(keys))

    def apart(self) -> list[str]:
        """The keys themselves, for the few pages that somebody looks into.

        psycopg2's STRINGARRAY does the same with a cursor at hand; without one it ends the process on Python 3.13.
        """
        return [plain or _ESCAPED.sub(r"\1", quoted) for quoted, plain in _KEYS.findall(self.literal)]


@dataclass(frozen=True, slots=True)
class PlannedPage:
    """One page of a plan.

    Attributes:
        number: pages to send are numbered from 0 without gaps; pages of skipped keys have numbers of their own,
            unique whatever their reasons.
        keys: at most PAGE_SIZE; every page to send but the last is full.
        reason: None for keys to send; else why all of these are skipped.
        step: the canary step whose keys these are, from 1; 0: those that come after the steps. Each step's pages are
            numbered for themselves.
    """

    number: int
    keys: KeyArray
    reason: str | None = None
    step: int = 0


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run as the ledger has it."""

    id: int
    namespace: str
    name: str
    run_id: str
    definition_hash: str
    on_uncertain: OnUncertain
    state: RunState
    plan_wanted: int
    plan_id: int | None
    key_type: str | None
    planned: int
    skipped: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    retry_generation: int = 0
    end_reason: str | None = None
    paused_at: datetime | None = None
    pause_reason: str | None = None
    pause_message: str | None = None
    resumed_at: datetime | None = None
    retried: int | None = None
    approved_before: int | None = None


@dataclass(frozen=True, slots=True)
class WaveRow:
    """One wave and how far its ranges are.

    Attributes:
        ranges: completions of its Job: ranges when it was made.
        planned: recipients when it was made.
        finished: of the ranges that still bear its number, those that have ended.
        open: those that have not.
        active: open ones under a lease that holds.
        unclaimed: recipients of the open ones that are not claimed yet.
        held: it waits until the canary step before it is passed.
    """

    run: int
    number: int
    kind: WaveKind
    ranges: int
    planned: int
    created_at: datetime
    finished: int
    open: int
    active: int
    unclaimed: int
    held: bool = False


@dataclass(frozen=True, slots=True)
class StepRow:
    """A canary step and what became of its recipients at their first attempt.

    Attributes:
        step: from 1; its wave has the same number.
        held: it waits until the step before it is passed.
        ended_at: when it was seen that all of its ranges have ended.
        open: of its ranges, those that have not ended, in whichever wave they are now.
    """

    run: int
    step: int
    held: bool
    ended_at: datetime | None
    planned: int
    open: int
    sent: int
    failed: int
    uncertain: int
    deferred: int


@dataclass(frozen=True, slots=True)
class Deferrals:
    """A run's deferred recipients that wait for a Retry wave."""

    waiting: int
    due: int
    next_due_at: datetime | None
