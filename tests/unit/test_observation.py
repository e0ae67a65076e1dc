"""From manifests to what the rules see; and the pace of a run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mailfleet_operator import manifests, views
from mailfleet_operator.manifests import Image
from mailfleet_operator.pace import WINDOW, Pace
from mailfleet_sender.contract.accounts import Totals
from observations import NOW, campaign, relay

IMAGE = Image("sender:1", "Never", "mailfleet")


def live(manifest: dict[str, Any], **status: Any) -> dict[str, Any]:
    """A manifest as the API server gives it back."""
    meta = {**manifest["metadata"], "uid": "u-1", "resourceVersion": "1"}
    return {**manifest, "metadata": meta, "status": status}


class TestJobs:
    MADE = manifests.send_job(campaign(), relay(), IMAGE, run=5, wave=2, ranges=4, parallelism=3, suspended=True)

    def test_what_the_operator_writes_it_reads(self) -> None:
        job = views.job(live(self.MADE))
        assert (job.run, job.wave, job.parallelism, job.suspended) == (5, 2, 3, True)
        assert job.owner_uid == "c-1"
        assert job.made_for == manifests.made_for_send(campaign(), relay(), "mailfleet")
        assert job.image == "sender:1"
        assert not job.over

    def test_a_plan_job_knows_its_attempt(self) -> None:
        job = views.job(live(manifests.plan_job(campaign(), IMAGE, run=5, attempt=3)))
        assert (job.attempt, job.wave, job.component) == (3, None, "planner")

    def test_a_failed_job_says_when_and_why(self) -> None:
        condition = {
            "type": "Failed",
            "status": "True",
            "reason": "FailedIndexes",
            "message": "m",
            "lastTransitionTime": "2026-12-01T08:00:00Z",
        }
        job = views.job(live(self.MADE, conditions=[condition]))
        assert (job.over, job.failed_reason, job.ended_at) == (True, "FailedIndexes", NOW)

    def test_a_condition_that_does_not_hold_ends_nothing(self) -> None:
        assert not views.job(live(self.MADE, conditions=[{"type": "Failed", "status": "False"}])).over

    def test_its_campaign_is_found_by_its_label(self) -> None:
        assert views.owner_campaign(live(self.MADE)) == ("marketing", "autumn")


class TestPods:
    def pod(self, **status: Any) -> dict[str, Any]:
        labels = {"batch.kubernetes.io/job-name": "j", "batch.kubernetes.io/controller-uid": "u"}
        return {"metadata": {"namespace": "n", "name": "p", "uid": "x", "labels": labels}, "status": status}

    def test_a_container_that_waits_says_for_what(self) -> None:
        state = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
        pod = views.pod(self.pod(phase="Pending", containerStatuses=[{"state": state}]))
        assert (pod.waiting_reason, pod.waiting_message, pod.alive, pod.running) == (
            "ErrImagePull",
            "no such image",
            True,
            False,
        )

    def test_a_container_that_ended_leaves_its_last_words(self) -> None:
        ended = {
            "exitCode": 137,
            "reason": "OOMKilled",
            "message": "last words",
            "finishedAt": "2026-12-01T08:00:00Z",
        }
        pod = views.pod(self.pod(phase="Failed", containerStatuses=[{"state": {"terminated": ended}}]))
        assert (pod.exit_code, pod.exit_reason, pod.last_words, pod.finished_at) == (
            137,
            "OOMKilled",
            "last words",
            NOW,
        )
        assert not pod.alive

    def test_a_pod_without_a_node_says_why(self) -> None:
        scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}
        assert views.pod(self.pod(phase="Pending", conditions=[scheduled])).unschedulable == "no room"

    def test_a_pod_that_is_new_is_alive(self) -> None:
        assert views.pod(self.pod()).alive


class TestRefusals:
    def event(self, **changes: Any) -> dict[str, Any]:
        about = {"kind": "Job", "namespace": "n", "name": "j"}
        return {
            "metadata": {"creationTimestamp": "2026-12-01T07:00:00Z"},
            "reason": "FailedCreate",
            "involvedObject": about,
            "message": "exceeded quota",
            "lastTimestamp": "2026-12-01T08:00:00Z",
            **changes,
        }

    def test_a_refused_pod_is_one(self) -> None:
        refusal = views.refusal(self.event())
        assert refusal
        assert (refusal.job, refusal.message, refusal.at) == ("j", "exceeded quota", NOW)

    def test_an_event_of_the_newer_api_has_its_time_elsewhere(self) -> None:
        refusal = views.refusal(self.event(lastTimestamp=None, eventTime="2026-12-01T08:00:00.000000Z"))
        assert refusal
        assert refusal.at == NOW

    def test_other_events_are_not(self) -> None:
        assert views.refusal(self.event(reason="BackOff")) is None
        assert views.refusal(self.event(involvedObject={"kind": "ReplicaSet"})) is None


class TestRelays:
    def test_secrets_do_not_travel_with_the_relay(self) -> None:
        view = relay(auth={"secretRef": {"name": "ses-smtp"}}, tls={"caSecretRef": {"name": "ca", "key": "pem"}})
        assert view.auth_secret == "ses-smtp"
        assert view.ca
        assert view.relay
        assert view.relay.authenticate
        assert not {"ses-smtp", "pem"} & set(view.relay.model_dump_json().split('"'))

    def test_one_that_cannot_be_read_says_which_field(self) -> None:
        zone = {"rate": "1/s", "quota": {"messages": 1, "window": "Day", "timeZone": "Mars/Olympus"}}
        assert "is no time zone" in str(relay(limits=zone).invalid)
        view = relay("fast")
        assert view.relay is None
        assert "spec.limits.rate" in (view.invalid or "")


class TestPace:
    def test_the_first_look_is_no_progress(self) -> None:
        assert Pace().seen(Totals(planned=9, sent=9), NOW).per_second == 0

    def test_verdicts_over_time(self) -> None:
        pace = Pace().seen(Totals(sent=100), NOW).seen(Totals(sent=600), NOW + timedelta(seconds=5))
        assert pace.per_second == 100

    def test_a_deferral_is_an_attempt_and_so_is_its_retry(self) -> None:
        one = Pace().seen(Totals(), NOW).seen(Totals(deferred=10), NOW + timedelta(seconds=1))
        two = one.seen(Totals(sent=10), NOW + timedelta(seconds=2))
        assert one.per_second == 10
        assert two.per_second == 10

    def test_old_samples_are_forgotten(self) -> None:
        pace = Pace()
        for second in range(100):
            pace = pace.seen(Totals(sent=1000 if second else 0), NOW + timedelta(seconds=second))
        assert pace.per_second == 0
        assert len(pace.samples) <= WINDOW.total_seconds() + 2
        assert pace.still_for(NOW + timedelta(seconds=99)) == timedelta(seconds=98)

    @given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=30))
    def test_it_is_never_below_zero_even_if_a_verdict_moves(self, seen: list[tuple[int, int]]) -> None:
        pace = Pace()
        for second, (sent, deferred) in enumerate(seen):
            pace = pace.seen(Totals(sent=sent, deferred=deferred), NOW + timedelta(seconds=second))
            assert pace.per_second >= 0
