"""Relays as Argo CD meets them: the status is what the operator's own rules say."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from gitops.scenes import named
from mailfleet_operator import manifests, relay_plan
from mailfleet_operator.observation import PREFLIGHT, PodView, Refusal
from mailfleet_operator.relay_plan import AccountView, RelayObservation, Said
from mailfleet_sender.contract.preflight import Preflight, RelayFault
from observations import IMAGE, NOW, ago, failed, preflight_job, relay

SPEC = {"host": "smtp.example.com", "limits": {"rate": "1000/s"}}
MADE_FOR = manifests.made_for_preflight(relay(), "mailfleet")
PASSED = Preflight(MADE_FOR, "ses-0", None, "smtp.example.com:587 takes connections: TLSv1.3, no login", (), ago(600))
JOB = preflight_job(name="ses-preflight")
POD = PodView("marketing", "ses-preflight-x", "p-1", JOB.name, JOB.uid, PREFLIGHT, "Pending")
DIED = failed(JOB, 5)
TOLD = {
    RelayFault.HOST_NOT_FOUND: "smtp.example.com has no address",
    RelayFault.CONNECTION_REFUSED: "smtp.example.com:587 refuses connections",
    RelayFault.UNREACHABLE: "there is no way to smtp.example.com:587",
    RelayFault.TIMEOUT: "smtp.example.com:587 does not answer",
    RelayFault.CONNECTION_CLOSED: "smtp.example.com:587 closed the connection",
    RelayFault.NOT_SMTP: "smtp.example.com:587 does not speak SMTP",
    RelayFault.RELAY_REFUSES: "smtp.example.com:587 greets with 554",
    RelayFault.START_TLS_NOT_OFFERED: "smtp.example.com:587 offers no STARTTLS",
    RelayFault.TLS_FAILED: "TLS with smtp.example.com:587 failed",
    RelayFault.CERTIFICATE_INVALID: "the certificate of smtp.example.com has expired",
    RelayFault.CA_INVALID: "the CA of tls.caSecretRef is no certificate",
    RelayFault.AUTH_NOT_OFFERED: "smtp.example.com:587 offers no AUTH",
    RelayFault.CREDENTIALS_MISSING: "the Secret of auth.secretRef lacks the key password",
    RelayFault.CREDENTIALS_REFUSED: "AUTH was answered with 535: check the Secret",
}
"""What a preflight found, of each kind."""
GOOD = AccountView(limit=1000, effective=1000)


def _object(refused: Said | None = None, *, generation: int = 2, **changes: Any) -> dict[str, Any]:
    base = RelayObservation(now=NOW, relay=relay(), made_for=MADE_FOR, image=IMAGE, found=PASSED, account=GOOD)
    found = relay_plan.plan(replace(base, **changes), refused).status
    return {**_without_status(), "status": {**found, "observedGeneration": generation}}


def _waiting(**changes: Any) -> dict[str, Any]:
    """A relay whose first preflight cannot start."""
    return _object(found=None, jobs=(JOB,), pods=(replace(POD, **changes),))


def _without_status() -> dict[str, Any]:
    return {
        "apiVersion": "mailfleet.dev/v1alpha1",
        "kind": "EmailRelay",
        "metadata": {"name": "ses", "namespace": "marketing", "generation": 2},
        "spec": SPEC,
    }


RELAYS = {
    "new": _without_status(),
    "stale": _object(generation=1),
    "preflighting": _object(found=None),
    "ready": _object(),
    "throttled": _object(account=replace(GOOD, effective=400)),
    "quota-used-up": _object(account=replace(GOOD, room_at=NOW + timedelta(hours=2))),
    **{named(fault): _object(found=replace(PASSED, fault=fault, message=words)) for fault, words in TOLD.items()},
    "image-unavailable": _waiting(waiting_reason="ImagePullBackOff", waiting_message="no such image"),
    "pods-unschedulable": _waiting(unschedulable="0/3 nodes are available"),
    "pods-rejected": _object(
        found=None, jobs=(JOB,), refusals=(Refusal("marketing", JOB.name, "exceeded quota: pods", ago(5)),)
    ),
    "preflight-failed": _object(found=None, jobs=(DIED,)),
    "cluster-unavailable": _object(
        Said(holds=None, reason="ClusterUnavailable", message="Kubernetes refuses the preflight's Job"), found=None
    ),
    "ledger-unavailable": _object(ledger_trouble="connection refused"),
    "limiter-unavailable": _object(account=None, limiter_trouble="no answer"),
    "invalid": _object(relay=replace(relay(), relay=None, invalid="spec.port: too large")),
    "without-condition": {**_without_status(), "status": {"observedGeneration": 2}},
}
HEALTH = {
    "new": "Progressing",
    "stale": "Progressing",
    "preflighting": "Progressing",
    "ready": "Healthy",
    "throttled": "Healthy",
    "quota-used-up": "Healthy",
    **dict.fromkeys(map(named, TOLD), "Degraded"),
    "image-unavailable": "Progressing",
    "pods-unschedulable": "Progressing",
    "pods-rejected": "Progressing",
    "preflight-failed": "Progressing",
    "cluster-unavailable": "Progressing",
    "ledger-unavailable": "Degraded",
    "limiter-unavailable": "Degraded",
    "invalid": "Degraded",
    "without-condition": "Progressing",
}
