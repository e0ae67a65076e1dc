"""What a person sees with kubectl: explain, get, wait."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from custom_resources import campaign, relay, schema, walk
from kube import KubectlError

if TYPE_CHECKING:
    from kube import ControlPlane

OBJECTS = [
    (kind, path, node)
    for kind in ("emailcampaign", "emailrelay")
    for path, node in walk(schema(f"{kind}s"))
    if path.startswith(("spec", "status")) and ("properties" in node or "properties" in node.get("items", {}))
    if not path.endswith("[]")
]
STATUS = {
    "observedGeneration": 1,
    "runId": "1",
    "phase": "Sending",
    "startTime": "2026-11-24T03:00:00Z",
    "estimatedCompletionTime": "2099-01-02T03:04:05Z",
    "progress": "12600/20000",
    "recipients": {
        "planned": 20_000, "sent": 12_500, "failed": 60, "suppressed": 0, "skipped": 40, "uncertain": 3, "cancelled": 0,
        "deferred": 7, "remaining": 7_390,
    },
    "ranges": {"total": 40, "finished": 25, "active": 2},
    "rate": {"current": "998.0/s", "limit": "1000/s"},
    "senders": {"desired": 3, "active": 2},
    "wave": {"kind": "Main", "number": 1, "jobName": "autumn-news-send-0123abcd"},
    "conditions": [
        {
            "type": "Planned", "status": "True", "lastTransitionTime": "2026-11-24T03:00:00Z", "reason": "Planned",
            "message": "", "observedGeneration": 1,
        },
    ],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "path", "node"), OBJECTS, ids=lambda value: value if isinstance(value, str) else "")
def test_explain_tells_every_field(api: ControlPlane, kind: str, path: str, node: dict[str, Any]) -> None:
    told = " ".join(api.kubectl("explain", f"{kind}.{path}".replace("[]", "")).split())
    assert " ".join(node["description"].split()) in told
    for name, child in node.get("items", node)["properties"].items():
        assert f"{name} <" in told
        assert " ".join(child["description"].split()) in told


def test_explain_tells_the_whole_tree(api: ControlPlane) -> None:
    told = api.kubectl("explain", "emailcampaign.spec", "--recursive")
    for word in (
        "databaseSecretRef",
        "duplicateAddresses",
        "unsubscribe",
        "tolerationSeconds",
        "ttlSecondsAfterFinished",
    ):
        assert word in told


def test_get_shows_a_useful_line(api: ControlPlane, namespace: str) -> None:
    sending(api, namespace)
    head, line = rows(api.kubectl("get", "emailcampaigns", "-n", namespace))
    assert head == ["NAME", "PHASE", "PROGRESS", "SENT", "FAILED", "RATE", "ETA", "AGE"]
    assert line[:-1] == ["autumn-news", "Sending", "12600/20000", "12500", "60", "998.0/s", "2099-01-02T03:04:05Z"]


def test_get_wide_shows_more(api: ControlPlane, namespace: str) -> None:
    sending(api, namespace)
    head, line = rows(api.kubectl("get", "ec", "-n", namespace, "-o", "wide"))
    assert head[8:] == ["PLANNED", "DEFERRED", "UNCERTAIN", "SENDERS", "RELAY"]
    assert line[8:] == ["20000", "7", "3", "2", "ses"]


def test_get_shows_a_relay(api: ControlPlane, namespace: str) -> None:
    api.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(relay()))
    ready = {
        "type": "Ready",
        "status": "True",
        "lastTransitionTime": "2026-11-24T03:00:00Z",
        "reason": "Ready",
        "message": "",
    }
    throttled = {**ready, "type": "Throttled", "reason": "RelayThrottling"}
    figures = {"effectiveRate": "9.8/s", "usedToday": 12345, "campaigns": 2, "capabilities": ["PIPELINING"]}
    patch = {"status": {"observedGeneration": 1, **figures, "conditions": [ready, throttled]}}
    api.kubectl("patch", "er", "ses", "-n", namespace, "--subresource=status", "--type=merge", "-p", json.dumps(patch))
    head, line = rows(api.kubectl("get", "emailrelays", "-n", namespace))
    assert head == ["NAME", "HOST", "LIMIT", "EFFECTIVE", "READY", "USED", "CAMPAIGNS", "AGE"]
    assert line[:-1] == ["ses", "smtp.example.com", "14/s", "9.8/s", "True", "12345", "2"]
    head, line = rows(api.kubectl("get", "emailrelays", "-n", namespace, "-o", "wide"))
    assert head[8:] == ["PORT", "TLS", "THROTTLED", "REASON"]
    assert line[8:] == ["587", "StartTLS", "True", "Ready"]


def test_both_kinds_are_in_one_category(api: ControlPlane, namespace: str) -> None:
    for manifest in (campaign(), relay()):
        api.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(manifest))
    names = api.kubectl("get", "mailfleet", "-n", namespace, "-o", "name").split()
    assert names == ["emailcampaign.mailfleet.dev/autumn-news", "emailrelay.mailfleet.dev/ses"]


def test_wait_ends_when_the_campaign_is_complete(api: ControlPlane, namespace: str) -> None:
    sending(api, namespace)
    wait = ["wait", "emailcampaign/autumn-news", "-n", namespace, "--for=condition=Complete"]
    with pytest.raises(KubectlError, match="timed out waiting for the condition"):
        api.kubectl(*wait, "--timeout=1s")
    done = {
        "type": "Complete",
        "status": "True",
        "lastTransitionTime": "2026-11-24T04:00:00Z",
        "reason": "Complete",
        "message": "",
    }
    patch_status(
        api, namespace, {"conditions": [*STATUS["conditions"], done], "completionTime": "2026-11-24T04:00:00Z"}
    )  # type: ignore[misc]
    assert "condition met" in api.kubectl(*wait, "--timeout=120s")


def test_status_keeps_every_field_of_the_documentation(api: ControlPlane, namespace: str) -> None:
    sending(api, namespace)
    kept = json.loads(api.kubectl("get", "ec", "autumn-news", "-n", namespace, "-o", "json"))["status"]
    assert kept == STATUS


def test_status_is_written_by_nobody_through_the_resource_itself(api: ControlPlane, namespace: str) -> None:
    sending(api, namespace)
    api.kubectl(
        "patch", "ec", "autumn-news", "-n", namespace, "--type=merge", "-p", '{"status": {"phase": "Complete"}}'
    )
    assert api.kubectl("get", "ec", "autumn-news", "-n", namespace, "-o", "jsonpath={.status.phase}") == "Sending"


def sending(api: ControlPlane, namespace: str) -> None:
    """A campaign half-way."""
    api.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(campaign()))
    patch_status(api, namespace, STATUS)


def patch_status(api: ControlPlane, namespace: str, status: dict[str, Any]) -> None:
    patch = json.dumps({"status": status})
    api.kubectl("patch", "ec", "autumn-news", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)


def rows(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines()]
