"""Relays as Argo CD meets them: the status is what the operator's own rules say."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from mailfleet_operator import manifests, relay_plan
from mailfleet_operator.relay_plan import AccountView, RelayObservation
from mailfleet_sender.contract.preflight import Preflight, RelayFault
from observations import IMAGE, NOW, ago, relay

SPEC = {"host": "smtp.example.com", "limits": {"rate": "1000/s"}}
MADE_FOR = manifests.made_for_preflight(relay(), "mailfleet")
PASSED = Preflight(MADE_FOR, "ses-0", None, "smtp.example.com:587 takes connections: TLSv1.3, no login", (), ago(600))
REFUSED = replace(PASSED, fault=RelayFault.CREDENTIALS_REFUSED, message="AUTH was answered with 535: check the Secret")
GOOD = AccountView(limit=1000, effective=1000)


def _object(generation: int = 2, **changes: Any) -> dict[str, Any]:
    base = RelayObservation(now=NOW, relay=relay(), made_for=MADE_FOR, image=IMAGE, found=PASSED, account=GOOD)
    found = relay_plan.plan(replace(base, **changes)).status
    return {**_without_status(), "status": {**found, "observedGeneration": generation}}


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
    "credentials-refused": _object(found=REFUSED),
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
    "credentials-refused": "Degraded",
    "ledger-unavailable": "Degraded",
    "limiter-unavailable": "Degraded",
    "invalid": "Degraded",
    "without-condition": "Progressing",
}
