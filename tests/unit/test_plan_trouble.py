"""What is in the way shows as a condition with a reason and a remedy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailfleet_operator import plan
from mailfleet_operator.actions import DeleteJob
from mailfleet_operator.conditions import Condition, Type
from mailfleet_operator.observation import JobView, Observation, Refusal
from mailfleet_operator.pace import Pace, Sample
from mailfleet_sender.contract.accounts import ReportReason
from observations import (
    NOW,
    ago,
    campaign,
    ledger,
    observation,
    plan_job,
    planning,
    pod,
    report,
    send_job,
)


def said(o: Observation, type_: Type = Type.STALLED) -> Condition:
    return next(c for c in plan.plan(o).conditions if c.type is type_)


def with_pod(job: JobView | None = None, **changes: object) -> Observation:
    job = job or send_job()
    return observation(jobs=(job,), pods=(pod(job, phase="Pending", **changes),))


def test_a_missing_secret_is_named_with_its_remedy() -> None:
    o = with_pod(waiting_reason="CreateContainerConfigError", waiting_message='secret "mailfleet" not found')
    assert said(o).reason == "CredentialsMissing"
    assert 'secret "mailfleet" not found' in said(o).message
    assert "create it" in said(o).message


def test_of_a_planner_it_shows_in_planned_as_well() -> None:
    job = plan_job()
    waiting = pod(job, phase="Pending", waiting_reason="CreateContainerConfigError", waiting_message="no key url")
    o = observation(campaign=campaign(), ledger=planning(), jobs=(job,), pods=(waiting,))
    planned = said(o, Type.PLANNED)
    assert (planned.status, planned.reason) == (False, "CredentialsMissing")


def test_nothing_is_said_to_be_sent_while_no_sender_runs() -> None:
    o = with_pod(waiting_reason="CreateContainerConfigError", waiting_message='secret "mailfleet" not found')
    sending = said(o, Type.SENDING)
    assert (sending.status, sending.reason) == (False, "CredentialsMissing")
    assert sending.message == said(o).message


def test_senders_of_another_wave_go_on_sending() -> None:
    main, retry = send_job(), send_job(wave=2)
    waiting = pod(retry, phase="Pending", waiting_reason="CreateContainerConfigError", waiting_message="no key url")
    o = observation(jobs=(main, retry), pods=(pod(main), waiting))
    assert said(o).reason == "CredentialsMissing"
    assert (said(o, Type.SENDING).status, said(o, Type.SENDING).reason) == (True, "Sending")


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"])
def test_an_image_that_cannot_be_had_is_named(reason: str) -> None:
    o = with_pod(waiting_reason=reason)
    assert said(o).reason == "ImageUnavailable"
    assert "mailfleet-sender:1" in said(o).message
    assert not [a for a in plan.plan(o).actions if isinstance(a, DeleteJob)]


def test_a_job_with_a_bad_image_is_replaced_once_another_is_configured() -> None:
    o = replace(with_pod(waiting_reason="ImagePullBackOff"), image="mailfleet-sender:2")
    assert [a for a in plan.plan(o).actions if isinstance(a, DeleteJob)]


def test_a_job_at_work_keeps_its_older_image() -> None:
    assert not [a for a in plan.plan(observation(image="newer")).actions if isinstance(a, DeleteJob)]


def test_pods_that_no_node_takes_are_unschedulable() -> None:
    assert said(with_pod(unschedulable="0/3 nodes are available")).reason == "PodsUnschedulable"


def test_a_ca_secret_that_cannot_be_mounted_is_named() -> None:
    o = with_pod()
    mount = Refusal("marketing", o.pods[0].name, 'secret "ca" not found', ago(20))
    assert said(replace(o, refusals=(mount,))).reason == "CredentialsMissing"


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("pods is forbidden: exceeded quota: small", "raise the ResourceQuota"),
        ("violates PodSecurity restricted", "allow `restricted` pods"),
        ("minimum memory usage per Container is 1Gi", "minimum memory"),
    ],
)
def test_refused_pods_are_rejected_with_a_remedy(message: str, remedy: str) -> None:
    job = send_job(active=0)
    o = observation(jobs=(job,), pods=(), refusals=(Refusal("marketing", job.name, message, ago(30)),))
    assert said(o).reason == "PodsRejected"
    assert remedy in said(o).message


def test_a_refusal_of_long_ago_is_no_news() -> None:
    job = send_job(active=0)
    o = observation(jobs=(job,), pods=(), refusals=(Refusal("marketing", job.name, "exceeded quota", ago(3600)),))
    assert plan.trouble.policy(o) is None


def test_a_refusal_while_other_pods_run_stalls_nothing() -> None:
    job = send_job()
    o = observation(refusals=(Refusal("marketing", job.name, "exceeded quota", ago(5)),))
    assert plan.trouble.policy(o) is None


def dead(job: JobView, index: int, **changes: object) -> object:
    return pod(job, index, **{"phase": "Failed", "exit_code": 137, "finished_at": ago(10), **changes})


def test_senders_that_die_one_after_the_other_are_crashing() -> None:
    job = send_job(active=0)
    pods = tuple(dead(job, i, exit_reason="OOMKilled") for i in range(2))
    o = observation(jobs=(job,), pods=pods)
    assert said(o).reason == "SenderCrashing"
    assert "spec.senders.resources" in said(o).message


def test_one_death_is_no_pattern() -> None:
    job = send_job(active=0)
    assert plan.trouble.policy(observation(jobs=(job,), pods=(dead(job, 0),))) is None


def test_deaths_before_the_last_progress_are_overcome() -> None:
    job = send_job(active=0)
    pods = tuple(dead(job, i) for i in range(3))
    o = observation(jobs=(job,), pods=pods, pace=Pace((Sample(ago(5), 0),), 0, 0, ago(5)))
    assert plan.trouble.policy(o) is None


def test_interrupted_senders_are_not_crashing() -> None:
    job = send_job(active=0)
    pods = tuple(dead(job, i, exit_code=75) for i in range(3))
    assert plan.trouble.policy(observation(jobs=(job,), pods=pods)) is None


def reported(reason: ReportReason, rate: float = 0, reporter: str | None = None) -> Observation:
    job = send_job()
    signed = reporter or pod(job, 0).name
    pace = Pace((Sample(ago(10), 0), Sample(NOW, int(10 * rate))), 0, 0, NOW)
    return observation(ledger=ledger(reports=(report(reason, signed),)), pace=pace)


def test_a_relay_that_is_away_is_what_senders_say() -> None:
    assert said(reported(ReportReason.RELAY_UNAVAILABLE)).reason == "RelayUnavailable"
    assert said(reported(ReportReason.RELAY_UNAVAILABLE)).message == "words that help"


def test_one_sender_in_trouble_stalls_nothing_while_others_send() -> None:
    assert plan.trouble.policy(reported(ReportReason.RELAY_UNAVAILABLE, rate=100)) is None


def test_a_report_of_a_pod_that_is_gone_is_forgotten() -> None:
    gone = reported(ReportReason.RELAY_UNAVAILABLE, reporter=f"{send_job().name}-0-older")
    assert plan.trouble.policy(gone) is None


def test_the_report_of_a_planner_that_an_edit_has_replaced_is_no_trouble() -> None:
    outdated = plan_job(made_for="older")
    ended = pod(outdated, phase="Failed", exit_code=78)
    view = replace(planning(), reports=(report(ReportReason.TABLE_NOT_FOUND, ended.name),))
    o = observation(campaign=campaign(), ledger=view, jobs=(plan_job(),), pods=(ended,))
    assert plan.trouble.policy(o) is None


def last_words(seconds_ago: float, moved: float) -> Observation:
    """A sender said why it cannot go on and died; its successor has begun."""
    job = send_job()
    dying, young = pod(job, 0, phase="Failed", exit_code=78), pod(job, 1)
    said_so = report(ReportReason.RELAY_UNAVAILABLE, dying.name, seconds_ago=seconds_ago)
    pace = Pace((Sample(ago(moved), 0),), 0, 0, ago(moved))
    return observation(ledger=ledger(reports=(said_so,)), pods=(dying, young), pace=pace)


def test_last_words_of_the_dead_count_until_something_moves() -> None:
    assert said(last_words(seconds_ago=5, moved=60)).reason == "RelayUnavailable"
    assert plan.trouble.policy(last_words(seconds_ago=60, moved=5)) is None


def test_a_limiter_that_senders_miss_shows_as_throttled() -> None:
    assert said(reported(ReportReason.LIMITER_UNAVAILABLE), Type.THROTTLED).reason == "LimiterUnavailable"


def test_a_sender_that_saw_the_ledger_rewind_stops_the_campaign() -> None:
    assert said(reported(ReportReason.LEDGER_REWOUND)).reason == "LedgerRewound"
