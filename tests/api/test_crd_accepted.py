"""What the API server accepts, and what it makes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from custom_resources import EXAMPLES, campaign, put, relay

if TYPE_CHECKING:
    from pathlib import Path

    from kube import ControlPlane

TABLE = "spec.recipients.table"


def apply(api: ControlPlane, namespace: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """Apply it, and give what the API server keeps."""
    kept: dict[str, Any] = json.loads(
        api.kubectl("apply", "--server-side", "-n", namespace, "-f", "-", "-o", "json", stdin=json.dumps(manifest))
    )
    return kept


def test_smallest_campaign_gets_the_documented_defaults(api: ControlPlane, namespace: str) -> None:
    assert apply(api, namespace, campaign())["spec"] == {
        "runId": "1",
        "suspend": False,
        "cancel": False,
        "schedule": {"timeZone": "UTC"},
        "relayRef": {"name": "ses"},
        "weight": 100,
        "recipients": {
            "table": {
                "databaseSecretRef": {"name": "shop-db", "key": "url"},
                "schema": "public",
                "name": "subscribers",
                "keyColumn": "id",
                "emailColumn": "email",
            },
            "duplicateAddresses": "Skip",
        },
        "message": {"from": "Example Shop <news@example.com>", "subject": "Autumn", "text": "Hello"},
        "senders": {"minReplicas": 1, "maxReplicas": 20},
        "retry": {"initialDelaySeconds": 600, "maxDelaySeconds": 14_400, "maxAgeSeconds": 259_200},
        "onUncertain": "Skip",
        "ttlSecondsAfterFinished": 86_400,
    }


SOURCES: dict[str, dict[str, Any]] = {
    "ConfigMap": {"configMapKeyRef": {"name": "vip", "key": "people.csv"}},
    "volume": {"persistentVolumeClaim": {"claimName": "lists", "path": "2026/a..b.csv"}},
    "URL": {"url": {"href": "https://files.example.com:8443/vip.csv?signature=x%20y", "sha256": "0a" * 32}},
    "plain URL": {"url": {"href": "http://[fd00::1]/vip.csv", "sha256": "0a" * 32}},
    "all of it": {
        "configMapKeyRef": {"name": "vip", "key": "people.csv"},
        "keyColumn": "customer number",
        "emailColumn": "E-Mail",
        "match": [{"column": "country", "operator": "In", "values": ["DE", "AT"]}],
    },
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_recipients_may_be_a_file(api: ControlPlane, namespace: str, source: dict[str, Any]) -> None:
    kept = apply(api, namespace, put(campaign(), "spec.recipients", {"csv": source}))["spec"]["recipients"]
    assert kept == {"csv": {"emailColumn": "email", **source}, "duplicateAddresses": "Skip"}


def test_smallest_relay_gets_the_documented_defaults(api: ControlPlane, namespace: str) -> None:
    assert apply(api, namespace, relay())["spec"] == {
        "host": "smtp.example.com",
        "port": 587,
        "tls": {"mode": "StartTLS", "minimumVersion": "1.2", "verification": "Full"},
        "limits": {"rate": "14/s"},
        "connections": {"perSender": 10, "messagesPerConnection": 100, "idleTimeoutSeconds": 30},
        "pipelining": "Auto",
    }


def test_defaults_fill_an_object_that_is_given_in_part(api: ControlPlane, namespace: str) -> None:
    manifest = put(put(campaign(), "spec.senders", {"maxReplicas": 4}), "spec.retry", {})
    spec = apply(api, namespace, put(manifest, "spec.message.unsubscribe", {"mailto": "leave@example.com"}))["spec"]
    assert spec["senders"] == {"minReplicas": 1, "maxReplicas": 4}
    assert spec["retry"] == {"initialDelaySeconds": 600, "maxDelaySeconds": 14_400, "maxAgeSeconds": 259_200}
    assert spec["message"]["unsubscribe"] == {"mailto": "leave@example.com", "oneClick": True}


def test_canary_and_brake_get_the_documented_defaults(api: ControlPlane, namespace: str) -> None:
    manifest = put(put(campaign(), "spec.canary", {"steps": [{"percent": 5}]}), "spec.brake", {})
    spec = apply(api, namespace, manifest)["spec"]
    assert spec["canary"] == {
        "steps": [{"percent": 5}],
        "maxFailedPercent": 5,
        "maxDeferredPercent": 20,
        "pauseSeconds": 600,
        "approval": "Automatic",
    }
    assert spec["brake"] == {"maxFailedPercent": 10, "minimumSample": 200}


def test_an_exclusion_gets_the_documented_defaults(api: ControlPlane, namespace: str) -> None:
    spec = apply(api, namespace, put(campaign(), "spec.recipients.exclude", [{"table": {"name": "staff"}}]))["spec"]
    assert spec["recipients"]["exclude"] == [{"table": {"schema": "public", "name": "staff", "emailColumn": "email"}}]


def test_campaign_with_every_field_is_accepted(api: ControlPlane, namespace: str) -> None:
    manifest = campaign()
    manifest["spec"] |= {
        "runId": "2026-11.autumn_1",
        "suspend": True,
        "cancel": True,
        "weight": 1000,
        "schedule": {
            "startTime": "2026-12-01T08:00:00+01:00",
            "startingDeadlineSeconds": 3600,
            "endTime": "2026-12-02T20:00:00Z",
            "windows": [
                {"days": ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], "from": "00:00", "to": "24:00"},
                {"from": "22:00", "to": "06:30"},
            ],
            "timeZone": "America/Argentina/Buenos_Aires",
        },
        "rangeSize": 5000,
        "retry": {"initialDelaySeconds": 1, "maxDelaySeconds": 1, "maxAgeSeconds": 1},
        "canary": {
            "steps": [{"recipients": 10000000}, *({"percent": 100},) * 9],
            "maxFailedPercent": 0,
            "maxDeferredPercent": 100,
            "pauseSeconds": 0,
            "approval": "Manual",
            "approvedStep": 10,
        },
        "brake": {"maxFailedPercent": 100, "minimumSample": 1},
        "resumeTime": "2026-12-01T08:00:00Z",
        "retryFailed": {"generation": 1000000, "codes": ["451", "5.7.133", "Uncertain"]},
        "onUncertain": "Resend",
        "ttlSecondsAfterFinished": 0,
        "senders": {
            "minReplicas": 2,
            "maxReplicas": 2,
            "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": 1, "memory": "0.5Gi"}},
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [
                {"key": "mail", "operator": "Equal", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 9}
            ],
            "priorityClassName": "low",
        },
    }
    manifest["spec"]["recipients"] = {
        "duplicateAddresses": "Send",
        "exclude": [
            {"table": {"schema": "Shop", "name": "V_Staff", "emailColumn": "E-Mail"}},
            *({"table": {"schema": "public", "name": f"list_{n}", "emailColumn": "email"}} for n in range(15)),
        ],
        "table": {
            "databaseSecretRef": {"name": "shop-db", "key": "url"},
            "schema": "Shop",
            "name": "V_Subscribers",
            "keyColumn": "uuid",
            "emailColumn": "E-Mail",
            "match": [
                {"column": "a", "operator": "Equals", "values": ["true"]},
                {"column": "b", "operator": "NotEquals", "values": [""]},
                {"column": "c", "operator": "In", "values": ["DE", "AT"]},
                {"column": "d", "operator": "NotIn", "values": ["1"]},
                {"column": "e", "operator": "IsNull"},
                {"column": "f", "operator": "IsNotNull"},
            ],
        },
    }
    manifest["spec"]["message"] = {
        "from": "{{ shop }} <news@example.com>",
        "replyTo": "help@example.com",
        "envelopeFrom": "bounces+{{ id }}@example.com",
        "subject": "{{ first_name }}, news",
        "text": "line\nline\n",
        "html": "<p>ø</p>",
        "attachments": [
            {"name": "Geschäftsbedingungen (2026).pdf", "configMapKeyRef": {"name": "legal", "key": "terms.pdf"}},
            {
                "name": "x",
                "configMapKeyRef": {"name": "pictures.v2", "key": ".logo_1-2"},
                "contentType": "image/svg+xml",
                "contentId": "logo@shop.example.com",
            },
        ],
        "headers": {"X-Campaign": "autumn", "Feedback-ID": "{{ id }}:autumn", "To-Do": "x", "X-From": "y"},
        "unsubscribe": {
            "url": "https://example.com/u/{{ token }}",
            "mailto": "leave@example.com?subject={{ id }}",
            "oneClick": True,
        },
    }
    assert apply(api, namespace, manifest)["spec"] == manifest["spec"]


def test_a_template_stands_for_subject_text_and_html(api: ControlPlane, namespace: str) -> None:
    picture = {"name": "a.png", "contentId": "a", "configMapKeyRef": {"name": "pictures", "key": "a.png"}}
    message = {"from": "a@example.com", "templateRef": {"name": "autumn"}, "attachments": [picture]}
    assert apply(api, namespace, put(campaign(), "spec.message", message))["spec"]["message"] == message


@pytest.mark.parametrize(
    "url", ["https://e.example/u/{{ token | urlencode }}?a=b#c", "{{ unsubscribe_url }}", "{{url}}/x"]
)
def test_unsubscribe_url_may_hold_templates(api: ControlPlane, namespace: str, url: str) -> None:
    apply(api, namespace, put(campaign(), "spec.message.unsubscribe", {"url": url}))


def test_unsubscribe_by_http_is_accepted_without_one_click(api: ControlPlane, namespace: str) -> None:
    apply(api, namespace, put(campaign(), "spec.message.unsubscribe", {"url": "http://e.example/u", "oneClick": False}))


@pytest.mark.parametrize(
    "changes",
    [
        {"spec.host": "192.0.2.1"},
        {"spec.host": "2001:db8::25"},
        {"spec.host": "sink"},
        {"spec.helloName": "[192.0.2.1]"},
        {"spec.helloName": "[IPv6:2001:db8::25]"},
        {"spec.limits.rate": "1/d"},
        {"spec.limits.rate": "999999999/s,max_burst=999999999"},
        {
            "spec.tls": {"mode": "Implicit", "caSecretRef": {"name": "ca", "key": "ca.crt"}},
            "spec.auth": {"secretRef": {"name": "x"}},
        },
        {"spec.port": 25, "spec.tls": {"mode": "None"}},
        {"spec.tls": {"verification": "None"}},
    ],
    ids=str,
)
def test_relay_is_accepted(api: ControlPlane, namespace: str, changes: dict[str, Any]) -> None:
    manifest = relay()
    for path, value in changes.items():
        put(manifest, path, value)
    apply(api, namespace, manifest)


def test_campaign_at_every_limit_of_size_is_kept(api: ControlPlane, namespace: str) -> None:
    manifest = campaign("a" * 63)
    put(manifest, "spec.runId", "r" * 63)
    put(manifest, "spec.message.subject", "s" * 998)
    put(manifest, "spec.message.text", "t" * 131_072)
    put(manifest, "spec.message.html", "h" * 524_288)
    reference = {"name": "c" * 253, "key": "k" * 253}
    files = [{"name": f"{n}".ljust(80, "x"), "configMapKeyRef": reference} for n in range(16)]
    put(manifest, "spec.message.attachments", files)
    put(manifest, "spec.message.headers", {f"X-{n}".ljust(70, "x"): "v" * 998 for n in range(32)})
    many = {"column": "c" * 63, "operator": "In", "values": ["v" * 100] * 256}
    put(manifest, f"{TABLE}.match", [many] * 16)
    assert apply(api, namespace, manifest)["spec"]["message"] == manifest["spec"]["message"]


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.name)
def test_example_is_valid(api: ControlPlane, namespace: str, file: Path) -> None:
    told = api.kubectl("apply", "-n", namespace, "--validate=strict", "-f", str(file))
    assert told.count("created") == len(list(yaml.safe_load_all(file.read_text())))


def test_status_of_a_new_manifest_is_left_out(api: ControlPlane, namespace: str) -> None:
    """A campaign restored from a backup or copied from another cluster brings no status along."""
    kept = apply(api, namespace, campaign() | {"status": {"startTime": "2026-11-01T00:00:00Z"}})
    assert "status" not in kept
