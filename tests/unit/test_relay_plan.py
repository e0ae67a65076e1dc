"""When a relay is tried, and what its status says."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_operator import manifests, names, relay_plan
from mailfleet_operator.actions import CreatePreflightJob, DeleteJob
from mailfleet_operator.observation import PREFLIGHT, JobView, PodView, Refusal
from mailfleet_operator.relay_plan import AccountView, RelayObservation, Said, preflight
from mailfleet_sender.contract.preflight import Preflight, RelayFault
from observations import IMAGE, NOW, ago, failed, relay
from observations import preflight_job as job

if TYPE_CHECKING:
    from mailfleet_operator.observation import RelayView

MADE_FOR = manifests.made_for_preflight(relay(), "mailfleet")
PASSED = "smtp.example.com:587 takes connections: TLSv1.3, no login"
REFUSED = (
    "relay smtp.example.com:587 answered AUTH with 535: check user name and password of the relay's auth.secretRef"
)


def ended(view: JobView, seconds_ago: float, *, passed: bool) -> JobView:
    """The same, over."""
    if passed:
        return replace(view, complete=True, active=0, ended_at=ago(seconds_ago))
    return failed(view, seconds_ago)


def pod(of: JobView, **changes: Any) -> PodView:
    """Its pod, waiting to start."""
    view = PodView("marketing", f"{of.name}-abcde", f"p-{of.uid}", of.name, of.uid, PREFLIGHT, "Pending")
    return replace(view, **changes)


def found(fault: RelayFault | None = None, seconds_ago: float = 10, of: JobView | None = None) -> Preflight:
    """What a preflight wrote into the ledger."""
    offered = () if fault else ("PIPELINING", "STARTTLS")
    reporter = f"{(of or job()).name}-abcde"
    return Preflight(MADE_FOR, reporter, fault, REFUSED if fault else PASSED, offered, ago(seconds_ago))


def observed(**changes: Any) -> RelayObservation:
    """A relay that was found good ten minutes ago."""
    base = RelayObservation(
        now=NOW,
        relay=relay(),
        made_for=MADE_FOR,
        image=IMAGE,
        jobs=(ended(job(), 600, passed=True),),
        found=found(seconds_ago=600),
        account=AccountView(limit=1000.0, effective=1000.0),
        used_today=12_345,
        campaigns=2,
    )
    return replace(base, **changes)


def never_tried(**changes: Any) -> RelayObservation:
    return observed(**{"jobs": (), "found": None, **changes})


def with_ready(said: Said) -> RelayView:
    """A relay whose status says so already."""
    condition = {"type": "Ready", "status": "False", "reason": said.reason, "message": said.message}
    return replace(relay(), status={"conditions": [condition]})


def ready(o: RelayObservation) -> dict[str, Any]:
    first: dict[str, Any] = relay_plan.plan(o).status["conditions"][0]
    assert first["type"] == "Ready"
    return first


def throttled(o: RelayObservation) -> dict[str, Any]:
    second: dict[str, Any] = relay_plan.plan(o).status["conditions"][1]
    assert second["type"] == "Throttled"
    return second


def made(o: RelayObservation) -> list[CreatePreflightJob]:
    return [a for a in relay_plan.plan(o).actions if isinstance(a, CreatePreflightJob)]


def deleted(o: RelayObservation) -> list[str]:
    return [a.uid for a in relay_plan.plan(o).actions if isinstance(a, DeleteJob)]


class TestWhenItIsTried:
    def test_at_first_sight(self) -> None:
        assert made(never_tried()) == [CreatePreflightJob(MADE_FOR, 1, "")]

    def test_never_two_at_once(self) -> None:
        assert relay_plan.plan(never_tried(jobs=(job(),))).actions == ()

    def test_a_good_one_not_before_about_an_hour_has_passed(self) -> None:
        assert made(observed()) == []
        assert relay_plan.plan(observed()).due == ago(600) + preflight.interval(observed())
        assert preflight.EVERY * 0.9 <= preflight.interval(observed()) <= preflight.EVERY

    def test_relays_that_were_first_seen_together_are_not_tried_together_for_ever(self) -> None:
        several = [observed(relay=replace(relay(), uid=f"r-{n}")) for n in range(20)]
        assert len({preflight.interval(o) for o in several}) > 10

    def test_each_hour_again_and_the_job_before_goes(self) -> None:
        last = ended(job(), 3_600, passed=True)
        o = observed(jobs=(last,), found=found(seconds_ago=3_600))
        assert made(o) == [CreatePreflightJob(MADE_FOR, 1, last.uid)]
        assert deleted(o) == [last.uid]

    def test_hourly_jobs_have_names_of_their_own(self) -> None:
        one = names.preflight_job("ses", "marketing", MADE_FOR, 1, "")
        assert one != names.preflight_job("ses", "marketing", MADE_FOR, 1, "f-1")

    def test_a_job_that_kubernetes_removed_is_remembered_by_the_ledger(self) -> None:
        assert made(observed(jobs=())) == []
        assert made(observed(jobs=(), found=found(seconds_ago=3_601)))

    @pytest.mark.parametrize(("attempt", "seconds"), [(1, 15), (2, 30), (3, 60), (5, 240), (6, 480), (9, 600)])
    def test_after_a_failure_again_and_later_and_later(self, attempt: int, seconds: int) -> None:
        fault = found(RelayFault.CONNECTION_REFUSED)
        waiting = observed(jobs=(ended(job(attempt), seconds - 1, passed=False),), found=fault)
        due = observed(jobs=(ended(job(attempt), seconds, passed=False),), found=fault)
        assert made(waiting) == []
        assert relay_plan.plan(waiting).due == NOW + timedelta(seconds=1)
        assert [a.attempt for a in made(due)] == [attempt + 1]

    def test_a_success_after_failures_starts_the_count_anew(self) -> None:
        last = ended(job(7), 3_600, passed=True)
        assert [a.attempt for a in made(observed(jobs=(last,), found=found(of=last)))] == [1]

    def test_at_once_when_what_it_says_or_names_was_changed(self) -> None:
        o = observed(made_for="other")
        assert made(o) == [CreatePreflightJob("other", 1, "")]
        assert deleted(o) == [job().uid]
        assert made(observed(jobs=(job(),), made_for="other"))

    def test_it_is_not_tried_again_because_a_limit_was_changed(self) -> None:
        assert manifests.made_for_preflight(relay("1/s"), "mailfleet") == MADE_FOR
        changes: list[dict[str, Any]] = [
            {"host": "mx.example.com"},
            {"port": 25},
            {"tls": {"mode": "Implicit"}},
            {"tls": {"minimumVersion": "1.3"}},
            {"tls": {"caSecretRef": {"name": "ca", "key": "ca.crt"}}},
            {"auth": {"secretRef": {"name": "login"}}},
            {"helloName": "mail.example.com"},
        ]
        others = {manifests.made_for_preflight(relay(**change), "mailfleet") for change in changes}
        assert len(others - {MADE_FOR}) == len(changes)
        assert manifests.made_for_preflight(relay(), "another") != MADE_FOR

    def test_a_job_of_a_deleted_relay_of_this_name_is_not_ours(self) -> None:
        foreign = ended(job(owner_uid="r-0"), 10, passed=True)
        o = never_tried(jobs=(foreign,))
        assert made(o)
        assert deleted(o) == []

    def test_a_job_that_is_going_is_waited_out(self) -> None:
        o = never_tried(jobs=(job(deleting=True),))
        assert made(o)  # of the same name: it is refused until the other is gone
        assert deleted(o) == []

    def test_without_the_ledger_none(self) -> None:
        assert relay_plan.plan(never_tried(ledger_trouble="it is away")).actions == ()

    def test_a_relay_that_cannot_be_read_is_not_tried(self) -> None:
        o = never_tried(relay=replace(relay(), relay=None, invalid="spec.host: missing"), made_for="")
        assert relay_plan.plan(o).actions == ()

    def test_what_hangs_is_replaced(self) -> None:
        old = job(created_at=ago(16 * 60))
        assert made(never_tried(jobs=(old,))) == [CreatePreflightJob(MADE_FOR, 2, old.uid)]
        assert deleted(never_tried(jobs=(old,))) == [old.uid]
        running = pod(old, phase="Running")
        assert made(never_tried(jobs=(old,), pods=(running,))) == []

    def test_a_job_of_another_image_is_replaced_at_once(self) -> None:
        old = job(image="mailfleet-sender:0")
        assert made(never_tried(jobs=(old,)))
        over = ended(old, 600, passed=True)
        assert made(observed(jobs=(over,))) == []  # but an upgrade does not try all relays at once

    def test_a_clock_that_was_wrong_does_not_stop_it_for_days(self) -> None:
        assert made(observed(jobs=(), found=found(seconds_ago=-90_000)))


class TestReady:
    def test_nobody_knows_before_the_first_preflight(self) -> None:
        assert (ready(never_tried())["status"], ready(never_tried())["reason"]) == ("Unknown", "Preflighting")

    def test_it_says_what_was_found(self) -> None:
        said = ready(observed())
        assert (said["status"], said["reason"], said["message"]) == ("True", "Ready", PASSED)
        assert said["observedGeneration"] == relay_plan.plan(observed()).status["observedGeneration"] == 2
        assert relay_plan.plan(observed()).status["capabilities"] == ["PIPELINING", "STARTTLS"]

    def test_a_fault_is_its_reason_and_its_remedy_the_message(self) -> None:
        last = ended(job(), 5, passed=False)
        said = ready(observed(jobs=(last,), found=found(RelayFault.CREDENTIALS_REFUSED)))
        assert (said["status"], said["reason"], said["message"]) == ("False", "CredentialsRefused", REFUSED)

    def test_while_it_is_tried_again_the_verdict_before_stays(self) -> None:
        fault = found(RelayFault.CREDENTIALS_REFUSED)
        assert ready(observed(jobs=(job(2),), found=fault))["reason"] == "CredentialsRefused"
        assert ready(observed(jobs=(job(),)))["status"] == "True"

    def test_a_verdict_over_other_settings_counts_no_longer(self) -> None:
        assert ready(observed(made_for="other"))["reason"] == "Preflighting"

    def test_ledger_and_limiter_come_first(self) -> None:
        assert ready(observed(ledger_trouble="it is away"))["reason"] == "LedgerUnavailable"
        said = ready(observed(limiter_trouble="Redis refuses connections", account=None))
        assert (said["status"], said["reason"]) == ("False", "LimiterUnavailable")

    def test_a_spec_that_cannot_be_read_says_where(self) -> None:
        o = never_tried(relay=replace(relay(), relay=None, invalid="spec.limits.rate: no rate"), made_for="")
        assert ready(o)["reason"] == "SpecInvalid"
        assert "spec.limits.rate" in ready(o)["message"]

    def test_a_secret_that_is_missing_is_named(self) -> None:
        waits = pod(job(), waiting_reason="CreateContainerConfigError", waiting_message='secret "login" not found')
        said = ready(observed(jobs=(job(),), pods=(waits,)))
        assert (said["status"], said["reason"]) == ("False", "CredentialsMissing")
        assert 'secret "login" not found: create it' in said["message"]

    def test_a_ca_that_is_missing_is_named(self) -> None:
        event = Refusal("marketing", pod(job()).name, 'MountVolume.SetUp failed: secret "ca" not found', ago(5))
        said = ready(never_tried(jobs=(job(),), pods=(pod(job()),), refusals=(event,)))
        assert said["reason"] == "CredentialsMissing"

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"unschedulable": "0/3 nodes are available"}, "PodsUnschedulable"),
            ({"waiting_reason": "ImagePullBackOff", "waiting_message": "no such image"}, "ImageUnavailable"),
        ],
    )
    def test_what_keeps_the_preflight_from_running_is_no_fault_of_the_relay(
        self, changes: dict[str, Any], reason: str
    ) -> None:
        pods = (pod(job(), **changes),)
        said = ready(never_tried(jobs=(job(),), pods=pods))
        assert (said["status"], said["reason"]) == ("Unknown", reason)
        assert ready(observed(jobs=(job(),), pods=pods))["status"] == "True"

    def test_a_pod_that_kubernetes_refuses_is_told(self) -> None:
        event = Refusal("marketing", job().name, "exceeded quota: pods", ago(5))
        assert ready(never_tried(jobs=(job(),), refusals=(event,)))["reason"] == "PodsRejected"
        refused = Said(holds=None, reason="PodsRejected", message="Kubernetes refuses the preflight's Job: forbidden")
        said = relay_plan.plan(never_tried(), refused).status["conditions"][0]
        assert said["reason"] == "PodsRejected"

    def test_last_words_of_one_that_could_not_reach_the_ledger_are_told(self) -> None:
        last = ended(job(2, after="x"), 5, passed=False)
        words = "the ledger does not answer; check ledger-url in the namespace's sender Secret and its server"
        pods = (pod(last, phase="Failed", exit_code=75, last_words=words),)
        said = ready(observed(jobs=(last,), pods=pods, found=found(of=job())))
        assert (said["status"], said["reason"]) == ("False", "LedgerUnavailable")
        assert words in said["message"]

    def test_and_stay_while_it_is_tried_again(self) -> None:
        words = Said(holds=False, reason="LedgerUnavailable", message="the preflight reports: x")
        o = never_tried(relay=with_ready(words), jobs=(job(2),))
        assert ready(o)["message"] == words.message

    def test_a_preflight_that_died_without_a_word_says_how(self) -> None:
        last = ended(job(), 5, passed=False)
        died = pod(last, phase="Failed", exit_code=137, exit_reason="OOMKilled")
        said = ready(never_tried(jobs=(last,), pods=(died,)))
        assert (said["status"], said["reason"]) == ("Unknown", "PreflightFailed")
        assert "OOMKilled 137" in said["message"]

    def test_one_that_was_evicted_leaves_the_verdict_as_it_was(self) -> None:
        last = ended(job(2, after="x"), 5, passed=False)
        assert ready(observed(jobs=(last,), found=found(of=job())))["status"] == "True"

    def test_it_says_with_whom_limits_are_shared_and_which_of_its_own_do_not_hold(self) -> None:
        shared = replace(relay(), sharing=("marketing/other",), lowered="rate 10/s (here 14/s)")
        message = ready(observed(relay=shared))["message"]
        assert "is shared with marketing/other" in message
        assert message.endswith("the lowest limits hold: rate 10/s (here 14/s)")

    def test_a_time_changes_only_with_its_status(self) -> None:
        first = relay_plan.plan(observed()).status
        assert {c["lastTransitionTime"] for c in first["conditions"]} == {"2026-12-01T08:00:00Z"}
        later = observed(relay=replace(relay(), status=first), now=NOW + timedelta(minutes=5))
        assert relay_plan.plan(later).status == first


class TestThrottled:
    def test_a_relay_that_asked_to_slow_down(self) -> None:
        o = observed(account=AccountView(limit=14.0, effective=9.8))
        assert throttled(o)["reason"] == "RelayThrottling"
        assert "9.8/s of 14/s" in throttled(o)["message"]
        assert relay_plan.plan(o).status["effectiveRate"] == "9.8/s"

    def test_a_quota_that_is_used_up_says_until_when(self) -> None:
        o = observed(account=AccountView(14.0, 14.0, used=50_000, room_at=NOW + timedelta(hours=2)))
        assert (throttled(o)["status"], throttled(o)["reason"]) == ("True", "WaitingForQuota")
        assert "2026-12-01T10:00:00Z" in throttled(o)["message"]
        assert relay_plan.plan(o).status["usedToday"] == 50_000

    def test_nobody_knows_without_the_limiter(self) -> None:
        o = observed(account=None, limiter_trouble="Redis refuses connections")
        assert (throttled(o)["status"], throttled(o)["reason"]) == ("Unknown", "LimiterUnavailable")
        assert "effectiveRate" not in relay_plan.plan(o).status

    def test_nothing_else_is_throttling(self) -> None:
        assert throttled(observed())["status"] == "False"
        assert relay_plan.plan(observed()).status["usedToday"] == 12_345

    def test_campaigns_that_use_it_are_counted(self) -> None:
        assert relay_plan.plan(observed()).status["campaigns"] == 2


def test_the_largest_status_is_below_4_kib() -> None:
    words = "ü" * 500
    most = Preflight(MADE_FOR, "x", None, words, ("X" * 40,) * 40, NOW)
    status = relay_plan.plan(observed(found=most)).status
    assert len(json.dumps(status, ensure_ascii=False).encode()) < 4_096


@st.composite
def some_job(draw: st.DrawFn) -> JobView:
    """A preflight in whatever state, for what the relay says now or said before."""
    attempt, age, state = draw(st.integers(1, 12)), draw(st.integers(0, 8_000)), draw(st.sampled_from("wpf"))
    made_for = draw(st.sampled_from([MADE_FOR, "other"]))
    view = job(attempt, uid=f"{attempt}-{age}-{state}-{made_for}", made_for=made_for, created_at=ago(age + 20))
    return view if state == "w" else ended(view, age, passed=state == "p")


JOBS = st.lists(some_job(), max_size=4, unique_by=lambda j: j.uid)
FINDINGS = st.none() | st.builds(found, st.none() | st.sampled_from(RelayFault), st.integers(-100_000, 100_000))


@given(JOBS, FINDINGS)
def test_whatever_is_there_at_most_one_is_made_and_then_nothing_is_left_to_do(
    jobs: list[JobView], finding: Preflight | None
) -> None:
    """Done once, a second look does nothing: the actions converge."""
    o = observed(jobs=tuple(jobs), found=finding)
    planned = relay_plan.plan(o)
    fresh = [a for a in planned.actions if isinstance(a, CreatePreflightJob)]
    assert len(fresh) <= 1
    gone = {a.uid for a in planned.actions if isinstance(a, DeleteJob)}
    after = [j for j in o.jobs if j.uid not in gone]
    after += [job(a.attempt, after=a.after, created_at=NOW, uid="new") for a in fresh]
    again = replace(o, jobs=tuple(after))
    assert not [a for a in relay_plan.plan(again).actions if isinstance(a, CreatePreflightJob)]
    if not fresh and planned.due is not None:
        later = replace(again, now=planned.due)
        assert preflight.policy(later).actions or later.at_work
