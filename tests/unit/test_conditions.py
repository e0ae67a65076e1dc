"""Conditions, their times and Events; the status as a whole."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mailfleet_operator import events, plan, status
from mailfleet_operator.conditions import (
    MESSAGE_BYTES,
    Condition,
    Type,
    clip,
    false,
    parse_time,
    settle,
    time_text,
    true,
)
from mailfleet_operator.observation import LedgerView, Observation, WaveView
from mailfleet_operator.pace import Pace, Sample
from mailfleet_sender.contract.accounts import Failure, RunState, Totals, WaveKind
from observations import (
    NOW,
    ago,
    campaign,
    ledger,
    main_wave,
    observation,
    planned,
    pod,
    run,
    send_job,
    started,
    with_status,
)


class TestConditions:
    def test_every_type_appears_once(self) -> None:
        settled = settle((), (), now=NOW, generation=3)
        assert [c.type for c in settled] == list(Type)
        assert all(c.status is False and c.reason and c.message for c in settled)

    def test_who_speaks_first_is_heard(self) -> None:
        said = (true(Type.STALLED, "First", "m"), true(Type.STALLED, "Second", "m"))
        assert next(c for c in settle(said, (), now=NOW, generation=1) if c.type is Type.STALLED).reason == "First"

    def test_a_time_changes_only_with_its_status(self) -> None:
        before = settle((true(Type.STALLED, "First", "m"),), (), now=ago(60), generation=1)
        same = settle((true(Type.STALLED, "Second", "m"),), before, now=NOW, generation=2)
        other = settle((), before, now=NOW, generation=2)
        at = {c.type: c for c in same}[Type.STALLED]
        assert (at.since, at.generation) == (ago(60), 2)
        assert {c.type: c for c in other}[Type.STALLED].since == NOW

    def test_a_manifest_is_read_back(self) -> None:
        for condition in settle((true(Type.SENDING, "Sending", "m"),), (), now=NOW, generation=3):
            assert Condition.from_manifest(condition.as_manifest()) == condition

    def test_a_type_of_another_version_is_passed_over(self) -> None:
        assert Condition.from_manifest({"type": "Unheard", "status": "True"}) is None

    @given(st.text(max_size=600))
    def test_a_message_fits_whatever_its_characters_need(self, message: str) -> None:
        clean = message.encode(errors="ignore").decode()
        assert len(clip(clean).encode()) <= MESSAGE_BYTES
        assert "\n" not in clip(clean)

    def test_a_message_that_fits_is_kept(self) -> None:
        assert clip("all is well") == "all is well"

    def test_times_are_read_back(self) -> None:
        assert parse_time(time_text(NOW)) == NOW
        assert parse_time("yesterday") is None
        assert parse_time(None) is None


class TestEvents:
    QUIET = settle((), (), now=NOW, generation=1)

    def changed(self, *said: Condition) -> tuple[Condition, ...]:
        return settle(said, self.QUIET, now=NOW, generation=1)

    def test_nothing_new_is_no_event(self) -> None:
        assert events.of_change(self.QUIET, self.QUIET) == ()

    def test_a_stall_is_a_warning_and_its_end_is_told(self) -> None:
        stalled = self.changed(true(Type.STALLED, "RelayUnavailable", "refused"))
        assert events.of_change(self.QUIET, stalled) == (events.Event("Warning", "RelayUnavailable", "refused"),)
        assert [e.reason for e in events.of_change(stalled, self.QUIET)] == ["Recovered"]

    def test_another_reason_is_told(self) -> None:
        one = self.changed(true(Type.STALLED, "RelayUnavailable", "m"))
        two = self.changed(true(Type.STALLED, "NoProgress", "m"))
        assert [e.reason for e in events.of_change(one, two)] == ["NoProgress"]

    def test_another_message_alone_is_not(self) -> None:
        one = self.changed(true(Type.STALLED, "NoProgress", "1 min"))
        two = self.changed(true(Type.STALLED, "NoProgress", "2 min"))
        assert events.of_change(one, two) == ()

    def test_of_two_conditions_with_one_reason_the_warning_is_told(self) -> None:
        both = self.changed(true(Type.STALLED, "SenderFault", "535"), true(Type.SUSPENDED, "SenderFault", "paused"))
        assert events.of_change(self.QUIET, both) == (events.Event("Warning", "SenderFault", "535"),)

    def test_the_end_of_a_pause_is_told_and_that_of_throttling_is_not(self) -> None:
        paused = self.changed(true(Type.SUSPENDED, "BySpec", "m"), true(Type.THROTTLED, "RateLimit", "m"))
        assert [e.reason for e in events.of_change(paused, self.QUIET)] == ["Resumed"]

    def test_a_new_campaign_tells_what_holds_and_nothing_else(self) -> None:
        first = self.changed(true(Type.PLANNED, "Planned", "m"), false(Type.SENDING, "WaitingForStart", "m"))
        assert [e.reason for e in events.of_change((), first)] == ["Planned"]

    def test_the_end_is_normal(self) -> None:
        done = self.changed(true(Type.COMPLETE, "Complete", "m"))
        assert [(e.kind, e.reason) for e in events.of_change(self.QUIET, done)] == [("Normal", "Complete")]


class TestTelling:
    """What comes and goes is one Event with a count."""

    EVENT = events.Event("Warning", "RelayUnavailable", "refused")

    def told(self, *seconds: float) -> list[events.Told]:
        """The same event at these times."""
        known: events.Told | None = None
        found = []
        for second in seconds:
            known = events.tell(self.EVENT, known, "autumn", "c-1", NOW + timedelta(seconds=second))
            found.append(known)
        return found

    def test_the_first_is_a_new_one(self) -> None:
        (told,) = self.told(0)
        assert (told.count, told.first, told.written) == (1, NOW, NOW)
        assert told.name.startswith("autumn.")

    def test_what_comes_again_is_counted_and_written_once_a_minute(self) -> None:
        found = self.told(*range(0, 300, 10))
        assert {t.name for t in found} == {found[0].name}
        assert [t.count for t in found] == list(range(1, 31))
        written = {t.written for t in found}
        assert written == {NOW + timedelta(minutes=m) for m in range(5)}

    def test_the_words_are_the_last_ones(self) -> None:
        (known,) = self.told(0)
        other = events.Event("Warning", "RelayUnavailable", "timed out")
        assert events.tell(other, known, "autumn", "c-1", NOW + timedelta(seconds=90)).event == other

    def test_after_an_hour_it_is_another_one_for_kubernetes_has_removed_the_first(self) -> None:
        first, second = self.told(0, 3_600)
        assert (second.count, second.first) == (1, second.written)
        assert second.name != first.name

    def test_two_campaigns_of_one_name_have_events_of_their_own(self) -> None:
        names = {events.tell(self.EVENT, None, "autumn", uid, NOW).name for uid in ("c-1", "c-2")}
        assert len(names) == 2


def of(o: Observation) -> dict[str, Any]:
    return status.of_campaign(o, plan.plan(o))


class TestStatus:
    MOVING = Pace((Sample(ago(10), 0), Sample(NOW, 5_000)), 0, 0, NOW)

    def test_it_says_how_far_how_fast_and_until_when(self) -> None:
        said = of(observation(pace=self.MOVING, account_rate=500))
        assert said["progress"] == "10000/20000"
        assert said["recipients"]["planned"] == 20_000
        assert said["rate"] == {"current": "500/s", "limit": "1000/s"}
        assert said["estimatedCompletionTime"] == "2026-12-01T08:00:20Z"
        assert said["senders"] == {"desired": 2, "active": 2}
        assert said["ranges"] == {"total": 4, "finished": 0, "active": 2}
        assert said["wave"] == {"kind": "Main", "number": 1, "jobName": send_job().name}
        assert said["observedGeneration"] == 3
        assert said["phase"] == "Sending"
        assert said["startTime"] == "2026-12-01T07:50:00Z"

    def test_where_every_recipient_stands(self) -> None:
        stand = {
            "sent": 20, "failed": 1, "suppressed": 2, "skipped": 3, "uncertain": 4, "cancelled": 5, "deferred": 6,
            "remaining": 7,
        }  # fmt: skip
        said = of(observation(ledger=ledger(totals=Totals(planned=48, **stand))))
        assert said["recipients"] == {"planned": 48, **stand}

    def test_why_recipients_failed(self) -> None:
        view = ledger(failures=(Failure("5.1.1", 12, "550 no such user"), Failure("552", 3, "full")))
        assert of(observation(ledger=view))["failures"] == [
            {"code": "5.1.1", "count": 12, "sample": "550 no such user"},
            {"code": "552", "count": 3, "sample": "full"},
        ]

    def test_pods_that_are_wanted_and_pods_that_run(self) -> None:
        job = send_job(parallelism=5)
        said = of(observation(jobs=(job,), pods=(pod(job, 0), pod(job, 1), pod(job, 2, phase="Pending"))))
        assert said["senders"] == {"desired": 5, "active": 2}

    def test_it_stays_below_4_kib(self) -> None:
        said = tuple(true(t, "ReasonOfSomeLength", "ä" * 300) for t in Type)
        o = observation(pace=self.MOVING)
        assert len(json.dumps(status.of_campaign(o, plan.Plan((), said)), ensure_ascii=False).encode()) < 4_096

    def test_a_campaign_made_anew_shows_when_its_run_began(self) -> None:
        assert of(observation(campaign=campaign()))["startTime"] == "2026-12-01T07:50:00Z"

    def test_before_the_start_there_is_no_start_time(self) -> None:
        o = observation(campaign=campaign(suspend=True), ledger=planned(), jobs=(), pods=())
        said = of(o)
        assert "startTime" not in said
        assert said["progress"] == "1000/20000"
        assert said["phase"] == "Suspended"

    def test_a_new_run_id_drops_the_figures_of_the_old(self) -> None:
        before = {**started(sent=500), "runId": "0", "completionTime": "2026-12-01T07:59:00Z"}
        said = of(observation(campaign=campaign(before), ledger=LedgerView(), jobs=(), pods=()))
        assert said["runId"] == "1"
        assert not {"startTime", "recipients", "completionTime"} & set(said)

    def test_a_rewound_ledger_does_not_wipe_the_evidence(self) -> None:
        said = of(observation(campaign=campaign(started(sent=9_999)), ledger=ledger(totals=Totals(20_000, sent=5))))
        assert said["recipients"]["sent"] == 9_999
        assert said["phase"] == "Stalled"

    def test_a_reused_run_id_shows_no_figures_of_the_other_sending(self) -> None:
        o = observation(campaign=campaign(), ledger=ledger(run=run(definition_hash="other")), jobs=(), pods=())
        assert not {"startTime", "recipients"} & set(of(o))

    def test_without_the_ledger_the_last_figures_stay(self) -> None:
        o = observation(campaign=campaign(started(sent=7)), ledger=None)
        assert of(o)["recipients"] == {"sent": 7}

    def test_waiting_for_a_retry_the_next_one_is_the_estimate(self) -> None:
        view = ledger(
            totals=Totals(planned=10, sent=8, deferred=2),
            waves=(main_wave(open=0, finished=4),),
            next_due=NOW + timedelta(seconds=600),
        )
        said = of(observation(ledger=view))
        assert said["phase"] == "Waiting"
        assert said["estimatedCompletionTime"] == "2026-12-01T08:10:00Z"

    def test_a_retry_that_is_due_already_says_nothing_about_the_end(self) -> None:
        view = ledger(totals=Totals(planned=10, sent=8, deferred=2), waves=(main_wave(open=0, finished=4),), due=2)
        assert "estimatedCompletionTime" not in of(observation(ledger=replace(view, next_due=ago(1))))

    def test_a_pause_has_no_estimate_though_the_last_mails_still_count(self) -> None:
        said = of(observation(campaign=campaign(started(sent=1), suspend=True), pace=self.MOVING))
        assert said["rate"]["current"] == "500/s"
        assert "estimatedCompletionTime" not in said

    def test_a_crawl_has_no_estimate(self) -> None:
        crawl = Pace((Sample(ago(20), 0), Sample(NOW, 1)), 0, 0, NOW)
        view = ledger(totals=Totals(planned=10**18, remaining=10**18))
        assert "estimatedCompletionTime" not in of(observation(ledger=view, pace=crawl))

    def test_without_the_ledger_there_is_no_estimate_and_no_rate(self) -> None:
        before = of(observation(pace=self.MOVING))
        said = of(observation(campaign=campaign(before), ledger=None))
        assert {"estimatedCompletionTime", "rate", "senders"} <= set(before)
        assert not {"estimatedCompletionTime", "rate", "senders"} & set(said)
        assert said["recipients"] == before["recipients"]

    def test_a_run_that_owes_nothing_is_completing(self) -> None:
        view = ledger(totals=Totals(planned=10, sent=10), waves=(main_wave(open=0, finished=4),))
        said = of(observation(ledger=view))
        assert (said["phase"], said["progress"]) == ("Completing", "10/10")

    def test_main_is_shown_while_it_runs(self) -> None:
        view = ledger(waves=(main_wave(), WaveView(2, WaveKind.RETRY, ranges=1, finished=0, open=1)))
        assert of(observation(ledger=view))["wave"]["number"] == 1

    def test_complete_shows_when_it_ended(self) -> None:
        view = ledger(
            RunState.COMPLETE,
            run=run(RunState.COMPLETE, ended_at=NOW),
            totals=Totals(planned=10, sent=10),
            waves=(main_wave(open=0, finished=4),),
        )
        said = of(observation(ledger=view))
        assert (said["phase"], said["completionTime"]) == ("Complete", "2026-12-01T08:00:00Z")
        assert "estimatedCompletionTime" not in said

    def test_which_retry_was_done_is_told(self) -> None:
        def told(generation: int) -> object:
            row = run(RunState.COMPLETE, ended_at=NOW, retry_generation=generation)
            return of(observation(ledger=ledger(RunState.COMPLETE, run=row))).get("retryFailedGeneration")

        assert (told(0), told(3)) == (None, 3)

    def test_an_unchanged_status_is_equal_to_itself(self) -> None:
        o = observation(pace=self.MOVING)
        first = of(o)
        again = of(replace(o, now=o.now + timedelta(seconds=1), campaign=with_status(o.campaign, first)))
        assert {k: v for k, v in again.items() if k != "estimatedCompletionTime"} == {
            k: v for k, v in first.items() if k != "estimatedCompletionTime"
        }

    def test_only_kinds_of_change_are_urgent(self) -> None:
        o = observation(pace=self.MOVING)
        first = of(o)
        more = {**first, "progress": "1/2"}
        stalled = of(observation(ledger=None))
        assert not status.changed_in_kind(first, more)
        assert status.changed_in_kind(first, stalled)

    def test_what_is_no_longer_said_is_removed(self) -> None:
        patch = status.merge_patch({"a": 1, "b": 2}, {"b": 3}, "77")
        assert patch == {"metadata": {"resourceVersion": "77"}, "status": {"a": None, "b": 3}}
