"""What an installation asks of every campaign: a start time, and not too many senders."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mailfleet_operator import plan
from mailfleet_operator.actions import CreateWaveJob, ScaleJob, StartRun
from mailfleet_operator.conditions import Condition, Type
from mailfleet_operator.errors import SettingsError
from mailfleet_operator.pace import Pace, Sample
from mailfleet_operator.scaling import Bounds
from mailfleet_operator.settings import Settings
from observations import NOW, ago, campaign, ledger, observation, planned, planning, relay, send_job, started

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation

IN_TIME = {"startTime": "2026-12-01T08:00:00Z", "startingDeadlineSeconds": 3600}
CLAIMED = {"runId": "1", "startTime": "2026-12-01T08:00:00Z"}


def said(o: Observation, type_: Type) -> Condition | None:
    return next((c for c in plan.plan(o).conditions if c.type is type_), None)


def moving(per_second: float) -> Pace:
    return Pace((Sample(ago(10), 0), Sample(NOW, int(per_second * 10))), 0, 0, NOW)


class TestStartTimeRequired:
    @pytest.mark.parametrize(
        ("schedule", "missing"),
        [
            ({}, "spec.schedule.startTime and spec.schedule.startingDeadlineSeconds"),
            ({"startTime": IN_TIME["startTime"]}, "spec.schedule.startingDeadlineSeconds"),
        ],
    )
    def test_campaign_without_is_not_planned_and_the_fields_are_named(
        self, schedule: dict[str, Any], missing: str
    ) -> None:
        o = observation(
            campaign=campaign(schedule=schedule), ledger=planning(), jobs=(), pods=(), require_start_time=True
        )
        assert plan.plan(o).actions == ()
        for type_, status in ((Type.PLANNED, False), (Type.STALLED, True)):
            condition = said(o, type_)
            assert condition
            assert (condition.status, condition.reason) == (status, "StartTimeRequired")
            assert condition.message.startswith(f"set {missing}: ")

    def test_campaign_with_both_is_planned_and_started(self) -> None:
        o = observation(campaign=campaign(CLAIMED, schedule=IN_TIME), ledger=planned(), jobs=(), pods=())
        assert plan.plan(replace(o, require_start_time=True)) == plan.plan(o)
        assert any(isinstance(a, StartRun) for a in plan.plan(o).actions)

    def test_run_that_has_started_goes_on(self) -> None:
        o = observation()
        assert plan.plan(replace(o, require_start_time=True)) == plan.plan(o)

    def test_without_the_setting_nothing_is_asked(self) -> None:
        o = observation(campaign=campaign(), ledger=planning(), jobs=(), pods=())
        condition = said(o, Type.PLANNED)
        assert condition
        assert condition.reason == "Planning"


class TestMaxSenders:
    def test_bound_is_the_smaller_of_spec_and_installation(self) -> None:
        def bounds(most: int | None, **senders: int) -> Bounds:
            return observation(campaign=campaign(senders=senders), max_senders=most).bounds

        assert bounds(None, maxReplicas=50) == Bounds(1, 50)
        assert bounds(7, maxReplicas=50) == Bounds(1, 7)
        assert bounds(7, maxReplicas=5) == Bounds(1, 5)
        assert bounds(None, minReplicas=4, maxReplicas=5) == Bounds(4, 5)
        assert bounds(2, minReplicas=4, maxReplicas=5).clamp(4) == 2

    def test_new_wave_gets_no_more(self) -> None:
        fast = observation(relay=relay("100000/s"), jobs=(), pods=(), ledger=ledger(), max_senders=3)
        (job,) = [a for a in plan.plan(fast).actions if isinstance(a, CreateWaveJob)]
        assert job.parallelism == 3

    def test_lowering_it_shrinks_a_fleet_at_work(self) -> None:
        o = observation(jobs=(send_job(parallelism=4, active=4),), max_senders=2)
        (scale,) = [a for a in plan.plan(o).actions if isinstance(a, ScaleJob)]
        assert scale.parallelism == 2

    def test_held_back_campaign_names_field_and_remedy(self) -> None:
        condition = said(observation(pace=moving(300), max_senders=2), Type.THROTTLED)
        assert condition
        assert (condition.status, condition.reason) == (True, "SendersLimited")
        assert "spec.senders.maxReplicas is 20" in condition.message
        assert "allows a campaign 2 (maxSenders): raise maxSenders" in condition.message

    @pytest.mark.parametrize(
        "changes",
        [
            {"max_senders": None},
            {"max_senders": 3},
            {"pace": moving(990)},
            {"pace": Pace()},
            {"campaign": campaign(started(sent=1), senders={"maxReplicas": 2})},
            {"campaign": campaign(started(sent=1), suspend=True)},
        ],
        ids=["no bound", "not reached", "the relay's limit is", "not measured", "the spec's own bound", "paused"],
    )
    def test_it_is_silent_where_it_holds_nobody_back(self, changes: dict[str, Any]) -> None:
        o = observation(**{"pace": moving(300), "max_senders": 2, **changes})
        condition = said(o, Type.THROTTLED)
        assert condition is None or condition.reason != "SendersLimited"


def test_settings_of_the_installation_come_from_variables() -> None:
    needed = {
        "MAILFLEET_LEDGER_URL": "postgresql://x",
        "MAILFLEET_REDIS_URL": "redis://x",
        "MAILFLEET_SENDER_IMAGE": "sender:1",
    }
    usual = Settings.read(needed)
    assert (usual.max_senders, usual.require_start_time, usual.namespaces) == (None, False, ())
    told = {"MAILFLEET_MAX_SENDERS": "7", "MAILFLEET_REQUIRE_START_TIME": "true", "MAILFLEET_NAMESPACES": "a,b"}
    read = Settings.read({**needed, **told})
    assert (read.max_senders, read.require_start_time, read.namespaces) == (7, True, ("a", "b"))
    with pytest.raises(SettingsError, match="MAILFLEET_MAX_SENDERS"):
        Settings.read({**needed, "MAILFLEET_MAX_SENDERS": "many"})
