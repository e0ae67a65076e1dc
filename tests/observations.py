"""Observations for the tests of the operator's rules: a campaign in the middle of its life, changed as needed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from mailfleet_operator import manifests, names, views
from mailfleet_operator.observation import (
    PLANNER,
    PREFLIGHT,
    SENDER,
    CampaignView,
    JobView,
    LedgerView,
    Observation,
    PodView,
    RelayView,
    RunView,
    Status,
    WaveView,
)
from mailfleet_sender.contract.accounts import Report, ReportReason, RunState, Totals, WaveKind

NOW = datetime(2026, 12, 1, 8, 0, tzinfo=UTC)
IMAGE = "mailfleet-sender:1"


def ago(seconds: float) -> datetime:
    """A time before NOW."""
    return NOW - timedelta(seconds=seconds)


def campaign(status: dict[str, Any] | None = None, **spec: Any) -> CampaignView:
    """The smallest campaign."""
    return views.campaign(
        {
            "metadata": {
                "namespace": "marketing",
                "name": "autumn",
                "uid": "c-1",
                "generation": 3,
                "resourceVersion": "77",
            },
            "spec": {
                "runId": "1",
                "relayRef": {"name": "ses"},
                "recipients": {"table": {"databaseSecretRef": {"name": "shop", "key": "url"}, "name": "people"}},
                "message": {"from": "a@example.com", "subject": "s", "text": "t"},
                **spec,
            },
            "status": status or {},
        }
    )


def relay(rate: str = "1000/s", **spec: Any) -> RelayView:
    """A relay that needs no password."""
    return views.relay(
        {
            "metadata": {
                "namespace": "marketing",
                "name": "ses",
                "uid": "r-1",
                "generation": 2,
                "resourceVersion": "9",
                "creationTimestamp": "2026-12-01T00:00:00Z",
            },
            "spec": {"host": "smtp.example.com", "limits": {"rate": rate}, **spec},
        }
    )


def run(state: RunState = RunState.OPEN, **changes: Any) -> RunView:
    """The run of `campaign()`."""
    definition = campaign().definition
    assert definition
    row = RunView(5, "1", state, definition.definition_hash(), started_at=ago(600))
    return replace(row, **changes)


def main_wave(**changes: Any) -> WaveView:
    """Wave 1, four ranges, none finished."""
    return replace(WaveView(1, WaveKind.MAIN, ranges=4, finished=0, open=4, active=2), **changes)


def ledger(state: RunState = RunState.OPEN, **changes: Any) -> LedgerView:
    """A run under way."""
    base = LedgerView(
        run=run(state),
        totals=Totals(planned=20_000, sent=9_000, skipped=1_000, remaining=10_000),
        waves=(main_wave(),),
    )
    return replace(base, **changes)


def planned(**changes: Any) -> LedgerView:
    """A run that is planned and has not started."""
    totals = Totals(planned=20_000, skipped=1_000, remaining=19_000)
    return replace(LedgerView(run=run(RunState.PLANNED, started_at=None), totals=totals), **changes)


def planning() -> LedgerView:
    """A run without a plan."""
    return LedgerView(run=run(RunState.PLANNING, started_at=None))


def started(**recipients: int) -> dict[str, Any]:
    """The status of a campaign that has started."""
    return {"runId": "1", "startTime": "2026-12-01T07:50:00Z", "recipients": recipients}


def send_job(wave: int = 1, **changes: Any) -> JobView:
    """The Job of a wave, at work."""
    job = JobView(
        namespace="marketing",
        name=names.wave_job("autumn", "marketing", 5, wave),
        uid=f"j-{wave}",
        owner_uid="c-1",
        component=SENDER,
        run=5,
        wave=wave,
        attempt=1,
        made_for=manifests.made_for_send(campaign(), relay(), "mailfleet"),
        image=IMAGE,
        parallelism=2,
        suspended=False,
        active=2,
    )
    return replace(job, **changes)


def plan_job(attempt: int = 1, **changes: Any) -> JobView:
    """A plan Job, at work."""
    made_for = manifests.made_for_plan(campaign(), "mailfleet")
    name = names.plan_job("autumn", "marketing", 5, made_for, attempt)
    return replace(_alone(PLANNER, name, f"p-{attempt}", "c-1", 5, attempt, made_for), **changes)


def preflight_job(attempt: int = 1, *, after: str = "", **changes: Any) -> JobView:
    """A relay's preflight, at work."""
    made_for = manifests.made_for_preflight(relay(), "mailfleet")
    name = names.preflight_job("ses", "marketing", made_for, attempt, after)
    job = _alone(PREFLIGHT, name, f"f-{attempt}{after}", "r-1", 0, attempt, made_for)
    return replace(job, **{"created_at": ago(5), **changes})


def _alone(component: str, name: str, uid: str, owner_uid: str, run: int, attempt: int, made_for: str) -> JobView:
    """A Job of one pod that belongs to no wave, at work."""
    return JobView(
        namespace="marketing",
        name=name,
        uid=uid,
        owner_uid=owner_uid,
        component=component,
        run=run,
        wave=None,
        attempt=attempt,
        made_for=made_for,
        image=IMAGE,
        parallelism=1,
        suspended=False,
        active=1,
    )


def failed(job: JobView, seconds_ago: float) -> JobView:
    """The same Job, failed."""
    return replace(job, failed_reason="BackoffLimitExceeded", ended_at=ago(seconds_ago), active=0)


def pod(job: JobView, index: int = 0, **changes: Any) -> PodView:
    """A pod of a Job, running."""
    view = PodView(
        namespace="marketing",
        name=f"{job.name}-{index}-abcde",
        uid=f"{job.uid}-{index}",
        job=job.name,
        job_uid=job.uid,
        component=job.component,
        phase="Running",
        node="node-1",
        ready=True,
    )
    return replace(view, **changes)


def report(reason: ReportReason, reporter: str, message: str = "words that help", seconds_ago: float = 5) -> Report:
    """A report of a planner or sender."""
    return Report(5, reporter, reason, message, ago(seconds_ago))


def observation(**changes: Any) -> Observation:
    """A campaign whose Main wave is being sent by two pods."""
    job = send_job()
    base = Observation(
        now=NOW,
        campaign=campaign(started(sent=1)),
        ledger=ledger(),
        relay=relay(),
        jobs=(job,),
        pods=(pod(job, 0), pod(job, 1)),
        image=IMAGE,
    )
    o = replace(base, **changes)
    if o.campaign.spec:
        o = replace(
            o,
            made_for_plan=manifests.made_for_plan(o.campaign, "mailfleet"),
            made_for_send=manifests.made_for_send(o.campaign, o.relay, "mailfleet"),
        )
    return o


def with_status(view: CampaignView, status: dict[str, Any]) -> CampaignView:
    """The same campaign with another status."""
    return replace(view, status=Status(status))
