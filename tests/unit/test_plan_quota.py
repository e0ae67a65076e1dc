"""A quota that comes free in steps: what is said of it does not go to and fro."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfleet_operator import plan
from mailfleet_operator.actions import ScaleJob
from mailfleet_operator.conditions import Condition, Type, false
from mailfleet_operator.pace import Pace, Sample
from mailfleet_operator.plan import quota
from observations import NOW, ago, campaign, observation, relay, send_job, started

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation

QUOTA, STEP, TICK = 50_000, timedelta(minutes=5), timedelta(seconds=30)
STEPS_OF_A_DAY = 288


def waiting(short_seconds_ago: float | None, left: int | None = 100, *, own: bool = False) -> Observation:
    """A campaign that said WaitingForQuota at the last look; there is room now."""
    before = false(Type.SENDING, quota.REASON, "used up")
    limits = {"rate": "1000/s"} if own else {"rate": "1000/s", "quota": {"messages": QUOTA}}
    return observation(
        campaign=campaign({**started(), "conditions": [replace(before, since=ago(3600)).as_manifest()]}),
        relay=relay(limits=limits),
        quota_short_at=None if short_seconds_ago is None else ago(short_seconds_ago),
        quota_left=None if own else left,
    )


def said(o: Observation, type_: Type = Type.SENDING) -> Condition:
    return next(c for c in plan.plan(o).conditions if c.type is type_)


class TestRoomAfterAUsedUpQuota:
    def test_a_little_of_it_is_no_end_of_waiting(self) -> None:
        assert said(waiting(4)).reason == "WaitingForQuota"
        assert said(waiting(4), Type.THROTTLED).reason == "WaitingForQuota"
        assert "50000 messages in 24 hours comes free in steps: what is free is sent" in said(waiting(4)).message

    def test_a_tenth_of_it_is(self) -> None:
        assert said(waiting(4, left=QUOTA // 10 - 1)).reason == "WaitingForQuota"
        assert said(waiting(4, left=QUOTA // 10)).reason == "Sending"

    def test_room_that_lasts_is(self) -> None:
        assert said(waiting(359)).reason == "WaitingForQuota"
        assert said(waiting(360)).reason == "Sending"

    def test_of_the_relays_own_only_that_it_lasts_is_known(self) -> None:
        assert said(waiting(359, own=True)).reason == "WaitingForQuota"
        assert "it takes mail again" in said(waiting(359, own=True)).message
        assert said(waiting(360, own=True)).reason == "Sending"

    @pytest.mark.parametrize("seconds", [None, -3600], ids=["the operator is new", "its clock was set back"])
    def test_what_is_not_known_is_no_reason_to_wait(self, seconds: float | None) -> None:
        assert said(waiting(seconds)).reason == "Sending"

    def test_who_did_not_wait_does_not_begin_to(self) -> None:
        o = waiting(4)
        assert said(replace(o, campaign=campaign(started()))).reason == "Sending"

    def test_meanwhile_no_senders_are_added_and_nothing_is_a_stall(self) -> None:
        still = Pace((Sample(ago(600), 0), Sample(NOW, 0)), 0, 0, ago(600))
        o = replace(waiting(4), pace=still, jobs=(send_job(parallelism=9),))
        assert not [a for a in plan.plan(o).actions if isinstance(a, ScaleJob)]
        assert not [c for c in plan.plan(o).conditions if c.type is Type.STALLED]


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen, and whether the campaign said that it sends."""

    at: datetime
    left: int
    short: bool
    sends: bool


def two_days(used_before: list[int], per_tick: int) -> list[Look]:
    """A rolling quota of which so much was used in each step of yesterday, and a fleet that sends all that is free."""
    window, now, reason, short_at, found = deque(used_before, STEPS_OF_A_DAY), NOW, "Sending", None, []
    assert len(window) == STEPS_OF_A_DAY
    ticks_of_a_step, base = int(STEP / TICK), waiting(0)
    saying = {
        r: campaign({**started(), "conditions": [false(Type.SENDING, r, "").as_manifest()]})
        for r in ("Sending", quota.REASON)
    }
    for tick in range(2 * STEPS_OF_A_DAY * ticks_of_a_step):
        if tick % ticks_of_a_step == 0:
            window.append(0)
        free = max(0, QUOTA - sum(window))
        sent = min(free, per_tick)
        window[-1] += sent
        left = free - sent
        short_at = now if left <= 0 else short_at
        room_at = None if left else now
        o = replace(
            base, now=now, campaign=saying[reason], quota_left=left, quota_short_at=short_at, quota_room_at=room_at
        )
        waits = quota.waits(o)
        reason = quota.REASON if waits else "Sending"
        found.append(Look(now, left, left <= 0, not waits))
        now += TICK
    return found


def returns(looks: list[Look]) -> list[Look]:
    """The looks at which the campaign said that it sends again."""
    return [b for a, b in pairwise(looks) if b.sends and not a.sends]


def test_a_trickle_of_a_whole_day_is_one_wait() -> None:
    """Yesterday's quota was used evenly, and the fleet sends what comes free within seconds."""
    even = [QUOTA // STEPS_OF_A_DAY] * STEPS_OF_A_DAY
    looks = two_days([*even[:-1], even[-1] + QUOTA % STEPS_OF_A_DAY], per_tick=10_000)
    assert returns(looks) == []


def test_what_was_used_at_once_is_free_at_once() -> None:
    looks = two_days([QUOTA, *[0] * (STEPS_OF_A_DAY - 1)], per_tick=QUOTA // 3)
    assert [look.at for look in returns(looks)] == [NOW + STEPS_OF_A_DAY * STEP]


@settings(max_examples=40, deadline=None)
@given(
    spread=st.lists(st.integers(0, STEPS_OF_A_DAY - 1), min_size=1, max_size=40),
    per_tick=st.sampled_from([1, 20, 200, 5_000]),
)
def test_between_two_returns_lies_much_of_the_quota_or_room_that_lasted(spread: list[int], per_tick: int) -> None:
    used = [0] * STEPS_OF_A_DAY
    for step in spread:
        used[step] += QUOTA // len(spread)
    looks = two_days(used, per_tick)
    lasted = timedelta(0)
    for a, b in pairwise(looks):
        lasted = timedelta(0) if a.short else lasted + TICK
        assert not (a.sends and not b.sends and not b.short), "who sends waits only for a quota that is used up"
        assert b.sends or b.short or lasted <= quota.LASTS, "who has room for long says that it sends"
        if b.sends and not a.sends:
            assert 10 * b.left >= QUOTA or lasted >= quota.LASTS - TICK
