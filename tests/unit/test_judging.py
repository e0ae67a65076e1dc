"""What becomes of a recipient that the relay puts off."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.contract.campaign import Retry
from mailfleet_sender.delivery.candidate import Candidate
from mailfleet_sender.delivery.judging import outcome_of
from mailfleet_sender.smtp import Phase, Verdict, VerdictKind

NOW = datetime(2026, 12, 1, 8, 0, tzinfo=UTC)
LATER = Verdict(VerdictKind.DEFERRED, Phase.RCPT, "451", "4.3.0", "later")
RETRY = Retry(initial_delay_seconds=600, max_delay_seconds=3600, max_age_seconds=86_400)


@pytest.mark.parametrize(("attempt", "wait"), [(1, 600), (2, 1200), (3, 2400), (4, 3600), (5, 3600), (32_000, 3600)])
def test_each_wait_is_twice_as_long_as_the_one_before_up_to_the_bound(attempt: int, wait: int) -> None:
    assert RETRY.delay_seconds(attempt) == wait
    outcome = outcome_of(Candidate(0, "k", attempt, NOW), LATER, RETRY, NOW)
    assert (outcome.kind, outcome.retry_after_seconds) == (OutcomeKind.DEFERRED, wait)


def test_a_bound_below_the_first_wait_counts_as_the_first_wait() -> None:
    retry = Retry(initial_delay_seconds=600, max_delay_seconds=60)
    assert [retry.delay_seconds(attempt) for attempt in (1, 2, 3)] == [600, 600, 600]


def test_the_last_attempt_is_made_when_its_age_ends() -> None:
    outcome = outcome_of(Candidate(0, "k", 4, NOW - timedelta(seconds=84_000)), LATER, RETRY, NOW)
    assert (outcome.kind, outcome.retry_after_seconds) == (OutcomeKind.DEFERRED, 2400)


def test_past_its_age_it_is_failed_with_its_last_reply() -> None:
    outcome = outcome_of(Candidate(0, "k", 30, NOW - timedelta(seconds=86_400)), LATER, RETRY, NOW)
    assert (outcome.kind, outcome.code, outcome.enhanced) == (OutcomeKind.FAILED, "451", "4.3.0")
    assert outcome.retry_after_seconds is None


@given(
    initial=st.integers(1, 86_400),
    bound=st.integers(1, 604_800),
    age=st.integers(1, 2_592_000),
    took=st.integers(0, 60),
)
def test_a_relay_that_never_takes_it_ends_at_its_age(initial: int, bound: int, age: int, took: int) -> None:
    retry = Retry(initial_delay_seconds=min(initial, age), max_delay_seconds=bound, max_age_seconds=age)
    now, waits, since = NOW, [], None
    for attempt in range(1, 100_000):
        outcome = outcome_of(Candidate(0, "k", attempt, since), LATER, retry, now)
        if outcome.kind is OutcomeKind.FAILED:
            break
        assert outcome.retry_after_seconds is not None
        waits.append(outcome.retry_after_seconds)
        since = outcome.since
        now += timedelta(seconds=outcome.retry_after_seconds + took)
        if attempt >= 200:  # a short bound and a long age: the rest is more of the same
            now = NOW + timedelta(seconds=age)
    assert outcome.kind is OutcomeKind.FAILED
    assert waits[:-1] == sorted(waits[:-1])  # growing, but for the last one
    assert max(waits) <= max(retry.initial_delay_seconds, bound)
    assert now <= NOW + timedelta(seconds=age + took)
