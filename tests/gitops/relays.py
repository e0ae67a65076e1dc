"""Relays as Argo CD meets them: the status is the operator's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mailfleet_operator import status
from observations import NOW, relay

SPEC = {"host": "smtp.example.com", "limits": {"rate": "1000/s"}}


def _object(found: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "mailfleet.dev/v1alpha1",
        "kind": "EmailRelay",
        "metadata": {"name": "ses", "namespace": "marketing", "generation": 2},
        "spec": SPEC,
        **({} if found is None else {"status": {**found, **more}}),
    }


READY = status.of_relay(relay(), NOW, None)
RELAYS = {
    "new": _object(None),
    "stale": _object(READY, observedGeneration=1),
    "ready": _object(READY),
    "not-published": _object(status.of_relay(relay(), NOW, "the ledger does not answer")),
    "invalid": _object(status.of_relay(replace(relay(), relay=None, invalid="spec.port: too large"), NOW, None)),
    "without-condition": _object({"observedGeneration": 2}),
}
HEALTH = {
    "new": "Progressing",
    "stale": "Progressing",
    "ready": "Healthy",
    "not-published": "Degraded",
    "invalid": "Degraded",
    "without-condition": "Progressing",
}
