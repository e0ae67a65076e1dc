"""Policies of the schedule: start, starting deadline, windows."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mailfleet_operator import plan, status
from mailfleet_operator.actions import (
    CloseRun,
    CreatePlanJob,
    CreateWaveJob,
    MakeRetryWave,
    RecordStart,
    ScaleJob,
    StartRun,
    SuspendJob,
    TellLimiter,
)
from mailfleet_operator.conditions import Condition, Type, time_text
from mailfleet_operator.observation import Skipped
from mailfleet_operator.pace import Pace, Sample
from mailfleet_operator.windows import BEGINNING
from mailfleet_sender.contract.accounts import EndReason, RunState, Totals
from observations import NOW, ago, campaign, ledger, observation, planned, planning, relay, run, send_job, started

if TYPE_CHECKING:
    from mailfleet_operator.observation import LedgerView, Observation

BEGINS = (CreateWaveJob, MakeRetryWave, RecordStart, StartRun)
LATE = CloseRun(5, RunState.FAILED, EndReason.STARTING_DEADLINE_EXCEEDED)
# NOW is Tuesday, 08:00 UTC.
OPEN = {"windows": [{"from": "07:00", "to": "10:00"}]}
CLOSED = {"windows": [{"from": "10:00", "to": "12:00"}]}


def at(hours: float) -> datetime:
    return NOW.replace(hour=0) + timedelta(hours=hours)


def done(o: Observation, *kinds: type) -> list[object]:
    return [a for a in plan.plan(o).actions if isinstance(a, kinds)]


def said(o: Observation, type_: Type) -> Condition | None:
    return next((c for c in plan.plan(o).conditions if c.type is type_), None)


def reason(o: Observation, type_: Type = Type.SENDING) -> str:
    condition = said(o, type_)
    return condition.reason if condition else ""


def waiting(schedule: dict[str, Any], view: LedgerView | None = None, **spec: Any) -> Observation:
    """A campaign that is planned, with a schedule."""
    found = campaign(schedule=schedule, **spec)
    return observation(campaign=found, ledger=view or planned(), jobs=(), pods=())


def sending(schedule: dict[str, Any], **changes: Any) -> Observation:
    """A campaign under way, with a schedule."""
    return replace(observation(campaign=campaign(started(), schedule=schedule)), **changes)


def in_seconds(seconds: float) -> str | None:
    return time_text(NOW + timedelta(seconds=seconds))


class TestStartTime:
    def test_before_it_the_campaign_is_planned_and_waits(self) -> None:
        assert done(waiting({"startTime": in_seconds(60)}, planning()), CreatePlanJob)
        o = waiting({"startTime": in_seconds(60)})
        assert plan.plan(o).actions == ()
        assert reason(o) == "WaitingForStart"
        condition = said(o, Type.SENDING)
        assert condition
        assert "2026-12-01T08:01:00Z" in condition.message

    @pytest.mark.parametrize("seconds", [0, -1, -1_000_000])
    def test_then_it_starts_however_late(self, seconds: float) -> None:
        assert done(waiting({"startTime": in_seconds(seconds)}), *BEGINS) == [RecordStart(NOW)]

    def test_a_person_who_holds_it_holds_it(self) -> None:
        o = waiting({"startTime": in_seconds(-60)}, suspend=True)
        assert plan.plan(o).actions == ()
        assert reason(o, Type.SUSPENDED) == "BySpec"

    def test_it_means_nothing_once_sending_has_begun(self) -> None:
        o = sending({"startTime": in_seconds(3600)})
        assert not done(o, SuspendJob)
        assert reason(o) == "Sending"


class TestStartingDeadline:
    def exceeded(self, seconds: float, view: LedgerView | None = None, **spec: Any) -> list[object]:
        schedule = {"startTime": in_seconds(-seconds), "startingDeadlineSeconds": 3600}
        return done(waiting(schedule, view, **spec), CloseRun)

    def test_within_it_the_run_starts(self) -> None:
        assert not self.exceeded(3600)

    @pytest.mark.parametrize("view", [planned(), planning()], ids=["planned", "planning"])
    def test_later_it_is_ended_and_begins_nothing(self, view: LedgerView) -> None:
        assert self.exceeded(3601, view) == [LATE]
        schedule = {"startTime": in_seconds(-3601), "startingDeadlineSeconds": 3600}
        assert not done(waiting(schedule, view), CreatePlanJob, *BEGINS)

    def test_it_holds_without_a_relay_too(self) -> None:
        schedule = {"startTime": in_seconds(-3601), "startingDeadlineSeconds": 3600}
        assert done(replace(waiting(schedule), relay=None), CloseRun) == [LATE]

    def test_a_run_that_has_started_goes_on(self) -> None:
        schedule = {"startTime": in_seconds(-3601), "startingDeadlineSeconds": 3600}
        assert not done(sending(schedule), CloseRun)

    def test_a_start_that_was_recorded_in_time_counts(self) -> None:
        schedule = {"startTime": in_seconds(-3601), "startingDeadlineSeconds": 3600}
        o = observation(campaign=campaign(started(), schedule=schedule), ledger=planned(), jobs=(), pods=())
        assert not done(o, CloseRun)
        assert done(o, StartRun)

    def test_while_a_person_holds_it_nothing_is_decided(self) -> None:
        assert not self.exceeded(1_000_000, suspend=True)

    def test_it_counts_from_the_first_window(self) -> None:
        schedule = {**OPEN, "startTime": in_seconds(-3 * 3600), "startingDeadlineSeconds": 3600}
        assert not done(waiting(schedule), CloseRun)  # 05:00; the window opens at 07:00
        assert done(replace(waiting(schedule), now=at(8.1)), CloseRun) == [LATE]

    def test_the_condition_tells_the_reason(self) -> None:
        row = run(RunState.FAILED, end_reason="StartingDeadlineExceeded", started_at=None)
        o = observation(campaign=campaign(), ledger=ledger(RunState.FAILED, run=row, totals=Totals()), jobs=())
        condition = said(o, Type.FAILED)
        assert condition
        assert condition.reason == "StartingDeadlineExceeded"
        assert "startingDeadlineSeconds" in condition.message


class TestWindows:
    def test_while_they_are_open_it_sends(self) -> None:
        assert not done(sending(OPEN), SuspendJob)
        assert reason(sending(OPEN)) == "Sending"

    def test_when_they_close_jobs_are_suspended_and_the_condition_says_until_when(self) -> None:
        job = send_job()
        assert done(sending(CLOSED), SuspendJob) == [SuspendJob(job.name, job.uid, suspend=True)]
        condition = said(sending(CLOSED), Type.SENDING)
        assert condition
        assert (condition.status, condition.reason) == (False, "WaitingForWindow")
        assert "2026-12-01T10:00:00Z" in condition.message
        assert said(sending(CLOSED), Type.SUSPENDED) is None  # nobody paused it

    def test_when_they_open_jobs_go_on(self) -> None:
        job = send_job(suspended=True)
        assert done(sending(OPEN, jobs=(job,)), SuspendJob) == [SuspendJob(job.name, job.uid, suspend=False)]

    def test_a_pause_by_a_person_is_what_is_said(self) -> None:
        o = observation(campaign=campaign(started(), schedule=CLOSED, suspend=True))
        assert (reason(o), reason(o, Type.SUSPENDED)) == ("Suspended", "BySpec")

    def test_outside_them_nothing_begins(self) -> None:
        assert not done(waiting(CLOSED), *BEGINS)
        assert reason(waiting(CLOSED)) == "WaitingForWindow"
        assert not done(sending(CLOSED, jobs=(), pods=(), ledger=ledger(due=5)), ScaleJob, *BEGINS)

    def test_in_them_it_starts(self) -> None:
        assert done(waiting(OPEN), *BEGINS) == [RecordStart(NOW)]

    def test_the_limiter_hears_when_they_close_and_open_in_the_days_to_come(self) -> None:
        (told,) = done(sending(OPEN), TellLimiter)
        assert isinstance(told, TellLimiter)
        margin = timedelta(seconds=2)
        assert told.open_until == at(10) - margin
        assert told.reopens[:2] == ((at(31), at(34) - margin), (at(55), at(58) - margin))
        assert len(told.reopens) == 14

    def test_while_they_are_closed_it_hears_that_and_when_they_open(self) -> None:
        (told,) = done(sending(CLOSED), TellLimiter)
        assert isinstance(told, TellLimiter)
        assert told.open_until == BEGINNING
        assert told.reopens[0] == (at(10), at(12) - timedelta(seconds=2))

    def test_what_it_is_told_does_not_change_with_every_look(self) -> None:
        o = sending(OPEN)
        assert done(o, TellLimiter) == done(replace(o, now=at(9.9)), TellLimiter)

    def test_it_hears_no_more_than_it_can_look_through(self) -> None:
        many = [{"from": f"{h:02}:00", "to": f"{h:02}:30"} for h in range(16)]
        (told,) = done(sending({"windows": many}), TellLimiter)
        assert isinstance(told, TellLimiter)
        assert len(told.reopens) == 15

    def test_windows_that_do_not_open_before_the_end_say_so(self) -> None:
        o = sending({**CLOSED, "endTime": time_text(at(9))})
        condition = said(o, Type.SENDING)
        assert condition
        assert "do not open before schedule.endTime" in condition.message
        (told,) = done(o, TellLimiter)
        assert isinstance(told, TellLimiter)
        assert (told.open_until, told.reopens) == (BEGINNING, ())

    def test_a_zone_that_is_not_known_is_named(self) -> None:
        o = sending({"timeZone": "Mars/Olympus"})
        assert plan.plan(o).actions == ()
        condition = said(o, Type.PLANNED)
        assert condition
        assert "'Mars/Olympus' is no time zone" in condition.message

    STILL = Pace((Sample(ago(10), 0), Sample(NOW, 0)), 0, 0, ago(7200))

    def after(self, reason: str, *, sends: bool = False) -> Observation:
        """Windows that are open, and what the status said at the look before."""
        condition = {
            "type": "Sending",
            "status": str(sends),
            "reason": reason,
            "lastTransitionTime": time_text(ago(60)),
        }
        view = campaign({**started(), "conditions": [condition]}, schedule=OPEN)
        return observation(campaign=view, pace=self.STILL)

    def test_a_night_without_a_verdict_is_no_stall(self) -> None:
        assert reason(sending(OPEN, pace=self.STILL), Type.STALLED) == "NoProgress"
        assert said(sending(CLOSED, pace=self.STILL), Type.STALLED) is None

    @pytest.mark.parametrize("waited", ["WaitingForWindow", "WaitingForQuota", "Suspended"])
    def test_nor_is_the_first_look_after_it(self, waited: str) -> None:
        assert said(self.after(waited), Type.STALLED) is None

    def test_nor_are_the_minutes_in_which_it_sends_again(self) -> None:
        assert said(self.after("Sending", sends=True), Type.STALLED) is None
        later = replace(self.after("Sending", sends=True), now=ago(-90))
        assert reason(later, Type.STALLED) == "NoProgress"

    def test_a_job_that_does_not_start_is_a_stall(self) -> None:
        assert reason(self.after("Starting"), Type.STALLED) == "NoProgress"


def test_a_plan_of_a_file_says_as_of_when_it_was_read() -> None:
    """Nobody watches the file: what is changed later is not in it."""
    read = {"file_read_at": ago(86_400)}
    words = "20000 recipients, 1000 of them skipped; the file as of 2026-11-30T08:00:00Z"
    for view in (planned(**read), ledger(**read), ledger(RunState.COMPLETE, **read)):
        condition = said(waiting({}, view), Type.PLANNED)
        assert condition
        assert words in condition.message
    condition = said(waiting({}, ledger()), Type.PLANNED)
    assert condition
    assert "as of" not in condition.message


class TestQuota:
    UNTIL = NOW + timedelta(minutes=5)

    def used_up(self, **limits: Any) -> Observation:
        return observation(quota_room_at=self.UNTIL, relay=relay(limits={"rate": "1000/s", **limits}))

    def test_a_used_up_quota_is_named_with_the_time_of_its_end(self) -> None:
        o = self.used_up(quota={"messages": 50_000})
        for type_ in (Type.SENDING, Type.THROTTLED):
            condition = said(o, type_)
            assert condition
            assert condition.reason == "WaitingForQuota"
            assert "50000 messages in 24 hours" in condition.message
            assert "2026-12-01T08:05:00Z" in condition.message
        assert status.of_campaign(o, plan.plan(o))["phase"] == "Waiting"

    def test_the_relays_own_quota_is_told_apart(self) -> None:
        condition = said(self.used_up(), Type.SENDING)
        assert condition
        assert "the relay says" in condition.message

    def test_waiting_for_it_is_no_stall_and_no_reason_for_more_senders(self) -> None:
        o = replace(self.used_up(), pace=TestWindows.STILL)
        assert said(o, Type.STALLED) is None
        assert not done(o, ScaleJob, SuspendJob)

    def test_outside_the_windows_they_are_what_is_waited_for(self) -> None:
        assert reason(replace(sending(CLOSED), quota_room_at=self.UNTIL)) == "WaitingForWindow"


class TestEstimate:
    MOVING = Pace((Sample(ago(10), 0), Sample(NOW, 10)), 0, 0, NOW)  # 10,000 are left at 1/s

    def test_it_counts_open_time_alone(self) -> None:
        o = sending(OPEN, pace=self.MOVING)
        assert o.ledger
        assert status.eta(o, o.ledger) == at(31) + timedelta(seconds=10_000 - 7200)

    def test_while_they_are_closed_there_is_none(self) -> None:
        o = sending(CLOSED, pace=self.MOVING)
        assert o.ledger
        assert status.eta(o, o.ledger) is None

    def test_what_does_not_fit_before_the_end_time_has_none(self) -> None:
        o = sending({"endTime": in_seconds(9_000)}, pace=self.MOVING)
        assert o.ledger
        assert status.eta(o, o.ledger) is None

    def test_a_quota_or_relay_says_nothing_about_it(self) -> None:
        o = sending({"endTime": in_seconds(11_000)}, pace=self.MOVING, relay=relay("1/s"))
        assert o.ledger
        assert status.eta(o, o.ledger) == NOW + timedelta(seconds=10_000)


class TestForecast:
    """planned() has 20,000 recipients, 19,000 of them to be mailed."""

    def planned_says(self, schedule: dict[str, Any], rate: str = "1000/s", **spec: Any) -> str:
        condition = said(replace(waiting(schedule, **spec), relay=relay(rate)), Type.PLANNED)
        assert condition
        assert condition.status
        return condition.message

    @pytest.mark.parametrize(
        ("rate", "takes"), [("1000/s", "19 s"), ("10/s", "32 min"), ("1/s", "5.3 h"), ("1/m", "13.2 days")]
    )
    def test_a_plan_says_how_long_it_takes(self, rate: str, takes: str) -> None:
        assert self.planned_says({}, rate, suspend=True) == (
            f"20000 recipients, 1000 of them skipped; at the relay's limit the others take {takes}"
        )

    def test_it_says_why_recipients_are_skipped(self) -> None:
        view = planned(skipped=(Skipped("DuplicateAddress", 900), Skipped("Excluded", 100)))
        condition = said(waiting({}, view, suspend=True), Type.PLANNED)
        assert condition
        assert "1000 of them skipped (900 DuplicateAddress, 100 Excluded); at" in condition.message

    def test_it_says_on_which_lines_of_a_file_they_are(self) -> None:
        view = planned(skipped=(Skipped("InvalidAddress", 900, ("2", "7", "11")), Skipped("NoAddress", 1, ("5",))))
        condition = said(waiting({}, view, suspend=True), Type.PLANNED)
        assert condition
        assert "(900 InvalidAddress at lines 2, 7, 11, ..., 1 NoAddress at line 5); at" in condition.message

    def test_it_says_to_which_domains_the_most_goes(self) -> None:
        view = planned(domains=(("gmail.com", 41), ("web.de", 12)))
        condition = said(waiting({}, view, suspend=True), Type.PLANNED)
        assert condition
        assert condition.message.endswith("; most at gmail.com 41 %, web.de 12 %")

    def test_domains_that_do_not_fit_are_left_out_whole(self) -> None:
        long = tuple((f"{'x' * 60}{n}.example", 10) for n in range(5))
        condition = said(waiting({}, planned(domains=long), suspend=True), Type.PLANNED)
        assert condition
        assert len(condition.message.encode()) <= 256
        assert condition.message.endswith(".example 10 %")

    def test_it_says_what_does_not_fit_before_the_end_time(self) -> None:
        schedule = {"endTime": in_seconds(16_700)}
        assert self.planned_says(schedule, "1/s", suspend=True).endswith("does not fit its window, 2,300 left")
        assert "does not fit" not in self.planned_says({"endTime": in_seconds(19_000)}, "1/s")

    def test_it_counts_from_the_start_time_and_within_the_windows(self) -> None:
        schedule = {**OPEN, "startTime": time_text(at(33)), "endTime": time_text(at(56))}
        assert "19,000" not in self.planned_says(schedule, "1/s")
        assert self.planned_says(schedule, "1/s").endswith(f"{19_000 - 2 * 3600:,} left")

    def test_an_end_that_is_too_far_to_be_seen_says_nothing(self) -> None:
        schedule = {**OPEN, "endTime": time_text(NOW + timedelta(days=60))}
        assert "does not fit" not in self.planned_says(schedule, "1/h")

    def test_it_does_not_change_with_every_look(self) -> None:
        o = replace(waiting({"endTime": in_seconds(900)}), relay=relay("1/s"))
        words = {said(replace(o, now=NOW + timedelta(seconds=s)), Type.PLANNED) for s in range(0, 300, 2)}
        assert len(words) == 1

    def test_once_it_sends_the_estimate_tells_more(self) -> None:
        condition = said(sending({}), Type.PLANNED)
        assert condition
        assert "take" not in condition.message
