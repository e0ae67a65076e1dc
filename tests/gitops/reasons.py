"""A scene for each reason of a condition that no scene of scenes.py has: what Argo CD says of it. Health only; what a
person can do is the same as in the scenes there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gitops.scenes import ALL, JOB, NOBODY, PLAN_JOB, Scene, ended, moving, named
from mailfleet_operator.apply import refused
from mailfleet_operator.errors import ClusterError
from mailfleet_operator.observation import LedgerView, StepView, WaveView
from mailfleet_sender.contract.accounts import ReportReason, RunState, Totals, WaveKind
from observations import ago, campaign, failed, ledger, main_wave, planned, planning, pod, relay, report, run

PLANNER_SAYS = {
    ReportReason.TABLE_NOT_FOUND: "there is no table or view public.people, or its role may not see it",
    ReportReason.KEY_TYPE_UNSUPPORTED: "column id of public.people is of type numeric",
    ReportReason.KEY_NULL: "the 3rd row of public.people has no id",
    ReportReason.KEY_NOT_UNIQUE: "two rows of public.people have the id 7",
    ReportReason.KEY_NOT_UTF8: "the id of the 3rd row of public.people is not UTF-8",
    ReportReason.MATCH_INVALID: "match cannot be compared with column age of public.people",
    ReportReason.TEMPLATE_INVALID: "message.text: first_name is undefined",
    ReportReason.ADDRESS_INVALID: "message.from is no address",
    ReportReason.CONFIG_MAP_NOT_FOUND: "there is no ConfigMap texts with the key body",
    ReportReason.ATTACHMENT_INVALID: "attachment terms.pdf is too large",
    ReportReason.CSV_INVALID: "line 3 has 2 fields, the header has 3",
    ReportReason.SOURCE_UNAVAILABLE: "the server of the file does not answer",
    ReportReason.SOURCE_REFUSED: "the file has another checksum than sha256",
    ReportReason.DATABASE_UNAVAILABLE: "the recipients' database does not answer",
    ReportReason.DATABASE_REFUSED: "the recipients' database refuses the password",
}
PLAN_ENDED: dict[str, Any] = {"jobs": (failed(PLAN_JOB, 5),), "pods": ()}


def unplanned(reason: ReportReason, message: str) -> Scene:
    """A planner that could not go on."""
    view = replace(planning(), reports=(report(reason, f"{PLAN_JOB.name}-0-x", message),))
    return Scene(named(reason), "Degraded", {"ledger": view, **PLAN_ENDED}, before={})


def told_by_a_sender(reason: ReportReason, message: str) -> dict[str, Any]:
    """What a sender at work says of itself."""
    return {"ledger": ledger(reports=(report(reason, pod(JOB).name, message),)), "pods": (pod(JOB),)}


CANARY = {"steps": [{"percent": 5}], "maxFailedPercent": 5, "pauseSeconds": 600}


def stepped(**changes: Any) -> dict[str, Any]:
    """A canary step that has ended."""
    definition = campaign(canary=CANARY).definition
    assert definition
    step = replace(StepView(1, held=False, planned=1_000, ended_at=ago(60), sent=990, failed=10), **changes)
    waves = (WaveView(1, WaveKind.CANARY, ranges=1, finished=1, open=0), main_wave(number=2, held=True, active=0))
    totals = Totals(planned=ALL, sent=step.sent, failed=step.failed, skipped=1_000, remaining=18_000)
    of_canary = run(definition_hash=definition.definition_hash())
    return {"ledger": ledger(run=of_canary, waves=waves, steps=(step,), totals=totals), **NOBODY}


DIED = pod(JOB, phase="Failed", exit_code=137, exit_reason="OOMKilled", finished_at=ago(10), ready=False)
OWES_NOTHING = ledger(
    totals=Totals(planned=ALL, sent=19_000, skipped=1_000), waves=(main_wave(finished=4, open=0, active=0),)
)
REFUSED = refused(ClusterError(0, "the API server does not answer"))

REASONS = (
    Scene(
        "spec-invalid",
        "Degraded",
        {
            "campaign": replace(campaign(), spec=None, definition=None, invalid="spec.retry: unknown"),
            "ledger": None,
            **NOBODY,
        },
        before={},
    ),
    Scene(
        "relay-invalid",
        "Degraded",
        {"ledger": planning(), "relay": replace(relay(), relay=None, invalid="spec.port: too large"), **NOBODY},
        before={},
    ),
    Scene("plan-failed", "Degraded", {"ledger": planning(), **PLAN_ENDED}, before={}),
    *(unplanned(reason, message) for reason, message in PLANNER_SAYS.items()),
    Scene(
        "superseding-run",
        "Progressing",
        {"ledger": LedgerView(older=(run(run_id="0", id=4),)), **NOBODY},
        before={},
    ),
    Scene("starting", "Healthy", NOBODY, strict="Progressing"),
    Scene("canary-pause", "Healthy", stepped(), {"canary": CANARY}, strict="Progressing"),
    Scene("waiting-for-approval", "Suspended", stepped(sent=900, failed=100, code="5.1.1"), {"canary": CANARY}),
    Scene("completing", "Healthy", {"ledger": OWES_NOTHING, **NOBODY}, strict="Progressing"),
    Scene("ending", "Healthy", {}, {"schedule": {"endTime": "2026-12-01T07:59:00Z"}}, strict="Progressing"),
    Scene(
        "relay-throttling",
        "Healthy",
        {**told_by_a_sender(ReportReason.RELAY_THROTTLING, "the relay asked to slow down"), "pace": moving(300)},
        strict="Progressing",
    ),
    Scene(
        "relay-unavailable",
        "Degraded",
        told_by_a_sender(ReportReason.RELAY_UNAVAILABLE, "the relay refuses connections"),
    ),
    Scene("internal-error", "Degraded", told_by_a_sender(ReportReason.INTERNAL_ERROR, "KeyError: a fault of ours")),
    Scene(
        "image-unavailable",
        "Degraded",
        {"pods": (pod(JOB, phase="Pending", waiting_reason="ImagePullBackOff", waiting_message="no such image"),)},
    ),
    Scene(
        "pods-unschedulable",
        "Degraded",
        {"pods": (pod(JOB, phase="Pending", unschedulable="0/3 nodes are available"),)},
    ),
    Scene("sender-crashing", "Degraded", {"jobs": (replace(JOB, active=0),), "pods": (DIED, replace(DIED, name="b"))}),
    Scene("cluster-unavailable", "Degraded", refused=REFUSED),
    Scene("pods-orphaned", "Degraded", {"jobs": (), "pods": (pod(JOB),)}, {"cancel": True}),
    Scene("superseded", "Degraded", ended(RunState.SUPERSEDED, sent=9_000, cancelled=11_000)),
    Scene(
        "starting-deadline-exceeded",
        "Degraded",
        {
            "ledger": planned(
                run=run(RunState.FAILED, end_reason="StartingDeadlineExceeded", started_at=None, ended_at=ago(60)),
                totals=Totals(planned=ALL, cancelled=19_000, skipped=1_000),
            ),
            **NOBODY,
        },
        before={},
    ),
)
