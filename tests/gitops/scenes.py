"""States of campaigns as Argo CD meets them: each status is what the operator's own rules say of an observation, so
a changed rule changes the tests. What Argo CD should make of it is written down here by hand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mailfleet_operator import plan, status
from mailfleet_operator.observation import Pause, Refusal
from mailfleet_operator.pace import Pace, Sample
from mailfleet_sender.contract.accounts import PauseReason, ReportReason, RunState, Totals
from observations import (
    NOW,
    ago,
    campaign,
    failed,
    ledger,
    main_wave,
    observation,
    plan_job,
    planned,
    planning,
    pod,
    report,
    run,
    send_job,
    started,
)

if TYPE_CHECKING:
    from mailfleet_operator.conditions import Condition
    from mailfleet_operator.observation import LedgerView

SPEC: dict[str, Any] = {
    "runId": "1",
    "relayRef": {"name": "ses"},
    "recipients": {"table": {"databaseSecretRef": {"name": "shop", "key": "url"}, "name": "people"}},
    "message": {"from": "a@example.com", "subject": "s", "text": "t"},
}
ALL = 20_000
OPEN = {"suspend": True, "resume": False, "cancel": True, "retry-failed": False}
PAUSED = {**OPEN, "suspend": False, "resume": True}
OVER = dict.fromkeys(OPEN, False)
"""Which actions a person can take."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A campaign in one state.

    Attributes:
        health: what Argo CD should say of it; `strict` in the strict variant, where that differs.
        spec: what a person wrote, beside `SPEC`.
        changes: of the observation.
        before: the status that was there.
        can: the actions that are not disabled.
        told: what is put onto the status by hand; for what the rules do not make (yet).
        refused: what Kubernetes said to the operator's actions.
    """

    name: str
    health: str
    changes: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=lambda: started(sent=1))
    strict: str | None = None
    can: dict[str, bool] = field(default_factory=lambda: OPEN)
    told: dict[str, Any] = field(default_factory=dict)
    refused: Condition | None = None

    def object(self) -> dict[str, Any]:
        """The campaign as `kubectl get -o json` gives it."""
        view = campaign(self.before, **self.spec)
        view = self.changes.get("campaign", view)
        o = replace(observation(**{"campaign": view, **self.changes}), campaign=view)
        planned = plan.plan(o)
        if self.refused:
            planned = replace(planned, conditions=(self.refused, *planned.conditions))
        found = {**status.of_campaign(o, planned), **self.told}
        manifest = {
            "apiVersion": "mailfleet.dev/v1alpha1",
            "kind": "EmailCampaign",
            "metadata": {"name": "autumn", "namespace": "marketing", "generation": view.generation},
            "spec": {**SPEC, **self.spec},
        }
        return manifest if self.name == "new" else {**manifest, "status": found}


def named(reason: str) -> str:
    """The name of the scene of a reason: KeyNull is key-null."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", reason).lower()


def moving(per_second: float) -> Pace:
    """A fleet at work."""
    return Pace((Sample(ago(10), 0), Sample(NOW, int(per_second * 10))), 0, 0, NOW)


def ended(state: RunState, reason: str | None = None, **totals: int) -> dict[str, Any]:
    """The observation of a run that is over."""
    over = ledger(state, run=run(state, ended_at=ago(60), end_reason=reason), totals=Totals(planned=ALL, **totals))
    return {"ledger": over, "jobs": (), "pods": ()}


def waiting() -> LedgerView:
    """A run of which only deferred recipients are left."""
    totals = Totals(planned=ALL, sent=19_900, deferred=100)
    return ledger(totals=totals, waves=(main_wave(finished=4, open=0, active=0),), next_due=NOW + timedelta(minutes=9))


NOBODY: dict[str, Any] = {"jobs": (), "pods": ()}
JOB, PLAN_JOB = send_job(), plan_job()
SCENES = (
    Scene("new", "Progressing"),
    Scene("stale", "Progressing", {"pace": moving(900)}, told={"observedGeneration": 2}),
    Scene("planning", "Progressing", {"ledger": planning(), **NOBODY}, before={}),
    Scene(
        "column-not-found",
        "Degraded",
        {
            "ledger": replace(planning(), reports=(report(ReportReason.COLUMN_NOT_FOUND, f"{PLAN_JOB.name}-0-x"),)),
            "jobs": (failed(PLAN_JOB, 5),),
            "pods": (),
        },
        before={},
    ),
    Scene("relay-not-found", "Degraded", {"ledger": planning(), "relay": None, **NOBODY}, before={}),
    Scene("start-time-required", "Degraded", {"ledger": planning(), "require_start_time": True, **NOBODY}, before={}),
    Scene(
        "credentials-missing",
        "Degraded",
        {
            "pods": (
                pod(
                    JOB,
                    phase="Pending",
                    waiting_reason="CreateContainerConfigError",
                    waiting_message='secret "mailfleet" not found',
                ),
            )
        },
    ),
    Scene(
        "pods-rejected",
        "Degraded",
        {"pods": (), "refusals": (Refusal("marketing", JOB.name, "exceeded quota", ago(9)),)},
    ),
    Scene("planned-only", "Suspended", {"ledger": planned(), **NOBODY}, {"suspend": True}, {}, can=PAUSED),
    Scene(
        "waiting-for-start",
        "Healthy",
        {"ledger": planned(), **NOBODY},
        {"schedule": {"startTime": "2026-12-02T08:00:00Z", "startingDeadlineSeconds": 3600}},
        {},
        strict="Progressing",
    ),
    Scene(
        "waiting-for-window",
        "Healthy",
        {},
        {"schedule": {"windows": [{"from": "12:00", "to": "20:00"}]}},
        strict="Progressing",
    ),
    Scene("sending", "Healthy", {"pace": moving(300)}, strict="Progressing"),
    Scene("rate-limited", "Healthy", {"pace": moving(990), "account_rate": 990.0}, strict="Progressing"),
    Scene("senders-limited", "Healthy", {"pace": moving(300), "max_senders": 2}, strict="Progressing"),
    Scene("limiter-unavailable", "Healthy", {"pace": moving(1), "limiter_trouble": "no answer"}, strict="Progressing"),
    Scene(
        "waiting-for-quota",
        "Healthy",
        {"pace": moving(1), "quota_room_at": NOW + timedelta(hours=3)},
        strict="Progressing",
    ),
    Scene("waiting-for-retry", "Healthy", {"ledger": waiting(), **NOBODY}, strict="Progressing"),
    Scene("suspended", "Suspended", {}, {"suspend": True}, can=PAUSED),
    Scene("no-progress", "Degraded", {"pace": Pace((Sample(ago(10), 9_000),), 9_000, 0, ago(600))}),
    Scene("ledger-unavailable", "Degraded", {"ledger": None, "ledger_trouble": "connection refused"}),
    Scene("ledger-rewound", "Degraded", {"ledger": ledger()}, before=started(sent=9_500)),
    Scene(
        "sender-fault",
        "Degraded",
        {"ledger": ledger(run=run(pause=Pause(PauseReason.SENDER_FAULT, "530 log in first", ago(60))))},
    ),
    Scene(
        "brake-applied",
        "Degraded",
        {"ledger": ledger(run=run(pause=Pause(PauseReason.BRAKE_APPLIED, "30 of the last 200 mails failed", ago(60))))},
    ),
    Scene("run-id-reused", "Degraded", {"ledger": ledger(run=run(definition_hash="another"))}),
    Scene("cancelling", "Healthy", {}, {"cancel": True}, strict="Progressing", can=OVER),
    Scene("complete", "Healthy", ended(RunState.COMPLETE, sent=19_000, skipped=1_000), can=OVER),
    Scene(
        "complete-with-failures",
        "Healthy",
        ended(RunState.COMPLETE, sent=18_950, skipped=1_000, failed=50),
        {"retryFailed": {"generation": 1, "codes": ["5.7.1"]}},
        told={"retryFailedGeneration": 1},
        can={**OVER, "retry-failed": True},
    ),
    Scene(
        "failures-by-code",
        "Healthy",
        ended(RunState.COMPLETE, sent=18_950, skipped=1_000, failed=50),
        told={"failures": [{"code": "5.7.1", "count": 40}, {"code": "Uncertain", "count": 10}]},
        can={**OVER, "retry-failed": True},
    ),
    Scene(
        "retry-asked-for",
        "Healthy",
        ended(RunState.COMPLETE, sent=18_950, skipped=1_000, failed=50),
        {"retryFailed": {"generation": 2, "codes": ["5.7.1"]}},
        told={"retryFailedGeneration": 1},
        can=OVER,
    ),
    Scene("cancelled", "Degraded", ended(RunState.CANCELLED, sent=9_000, cancelled=11_000), {"cancel": True}, can=OVER),
    Scene(
        "end-time-reached",
        "Degraded",
        ended(RunState.FAILED, "EndTimeReached", sent=9_000, cancelled=11_000),
        can=OVER,
    ),
)
ACTIONS = (
    ("suspend", "sending"),
    ("resume", "suspended"),
    ("cancel", "sending"),
    ("retry-failed", "complete-with-failures"),
    ("retry-failed", "failures-by-code"),
)
"""Which action is tried on which scene."""
