"""What a verdict means for its recipient. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.smtp import Phase

if TYPE_CHECKING:
    from datetime import datetime

    from mailfleet_sender.contract.campaign import Retry
    from mailfleet_sender.ledger import Outcome
    from mailfleet_sender.smtp import Verdict

    from .candidate import Candidate

TRIES = 3
"""A recipient whose transaction ended this often before its dot is deferred: the next one may fare better."""
WAITS = 5
"""The same where the relay said "not now" (421, throttling) or did not understand us, which says nothing about the
recipient, or should not. There are three simpler modes to fall back to."""


def try_again(candidate: Candidate, verdict: Verdict) -> bool:
    """Count a verdict that is no outcome; whether the recipient gets another permit."""
    if verdict.throttled or verdict.quota_exhausted or verdict.misunderstood or verdict.code == "421":
        candidate.waits += 1
    else:
        candidate.tries += 1
    return candidate.tries < TRIES and candidate.waits < WAITS


def outcome_of(candidate: Candidate, verdict: Verdict, retry: Retry, now: datetime) -> Outcome:
    """What is recorded. A verdict that is no outcome, and a recipient that waits too long already, have one as well."""
    kind, after, since = verdict.outcome or OutcomeKind.DEFERRED, None, candidate.since
    if kind is OutcomeKind.DEFERRED:
        since = since or now
        # The last attempt is made at the end of its age; one that would come right before it is not worth the wait.
        left = int((since + timedelta(seconds=retry.max_age_seconds) - now).total_seconds())
        after = min(retry.delay_seconds(candidate.attempt), left)
        if left < retry.initial_delay_seconds:
            kind, after = OutcomeKind.FAILED, None
    return candidate.outcome(
        kind,
        code=verdict.code,
        enhanced=verdict.enhanced,
        reply=verdict.reply,
        relay_queue_id=verdict.queue_id,
        retry_after_seconds=after,
        since=since,
        after_dot=verdict.phase is Phase.DOT,
        suppress=verdict.suppress,
    )


def said(verdict: Verdict) -> str:
    """The relay's own words, addresses already replaced."""
    return " ".join(filter(None, (verdict.code, verdict.enhanced, verdict.reply))) or "the connection ended"
