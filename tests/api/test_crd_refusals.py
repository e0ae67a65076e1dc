"""What the API server refuses, and what a person then reads. Every message names the field and the remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from custom_resources import campaign, put, relay

if TYPE_CHECKING:
    from kube import ControlPlane

REFUSED = yaml.safe_load(Path(__file__).with_name("test_crd_refused.yaml").read_text())
TOO_LARGE: list[tuple[str, Any, str]] = [
    ("spec.message.text", "x" * 131_073, "spec.message.text: Too long: may not be more than 131072"),
    ("spec.message.html", "x" * 524_289, "spec.message.html: Too long: may not be more than 524288"),
    ("spec.message.subject", "x" * 999, "spec.message.subject: Too long: may not be more than 998"),
    ("spec.message.headers", {"X-A": "x" * 999}, "spec.message.headers.X-A: Too long: may not be more than 998"),
    (
        "spec.message.headers",
        {f"X-{n}": "x" for n in range(33)},
        "spec.message.headers: Too many: 33: must have at most",
    ),
    (
        "spec.recipients.table.match",
        [{"column": "a", "operator": "IsNull"}] * 17,
        "spec.recipients.table.match: Too many",
    ),
    (
        "spec.recipients.table.match",
        [{"column": "a", "operator": "In", "values": ["x"] * 257}],
        "match[0].values: Too many",
    ),
    ("spec.senders.nodeSelector", {f"n{n}": "x" for n in range(17)}, "spec.senders.nodeSelector: Too many"),
]


def cases(kind: str) -> list[Any]:
    return [pytest.param(row["change"], row["told"], id=row["case"]) for row in REFUSED[kind]]


def refusal(api: ControlPlane, manifest: dict[str, Any]) -> str:
    """What kubectl says when it is given the manifest, on one line."""
    told = api.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest), check=False)
    assert "created" not in told
    return " ".join(told.split())


def changed(manifest: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    for path, value in change.items():
        put(manifest, path, value)
    return manifest


@pytest.mark.parametrize(("change", "told"), cases("campaigns"))
def test_campaign_is_refused_and_the_message_helps(api: ControlPlane, change: dict[str, Any], told: list[str]) -> None:
    said = refusal(api, changed(campaign(), change))
    for words in told:
        assert words in said


@pytest.mark.parametrize(("change", "told"), cases("relays"))
def test_relay_is_refused_and_the_message_helps(api: ControlPlane, change: dict[str, Any], told: list[str]) -> None:
    said = refusal(api, changed(relay(), change))
    for words in told:
        assert words in said


@pytest.mark.parametrize(("path", "value", "told"), TOO_LARGE, ids=[f"{row[0]} {row[2][-30:]}" for row in TOO_LARGE])
def test_what_is_too_large_is_refused_with_the_limit(api: ControlPlane, path: str, value: object, told: str) -> None:
    assert told in refusal(api, put(campaign(), path, value))


@pytest.mark.parametrize(
    "name",
    [
        "From",
        "to",
        "BCC",
        "Cc",
        "Subject",
        "date",
        "Message-Id",
        "MIME-Version",
        "Content-Type",
        "content-disposition",
        "List-Id",
        "List-Unsubscribe",
        "List-Unsubscribe-Post",
        "Return-Path",
        "Received",
        "Resent-To",
        "DKIM-Signature",
        "Sender",
        "Reply-To",
    ],
)
def test_header_that_is_not_the_persons_is_refused(api: ControlPlane, name: str) -> None:
    said = refusal(api, put(campaign(), "spec.message.headers", {name: "x"}))
    assert "spec.message.headers: Forbidden: From, Sender, Reply-To, To," in said
    assert "use the fields from, replyTo, envelopeFrom, subject and unsubscribe" in said


@pytest.mark.parametrize(
    "rate",
    [
        "14",
        "14 / s",
        "0/s",
        "0.5/s",
        "14/S",
        "14/sec",
        "14/s,burst=3",
        "14/s,max_burst=0",
        "-1/s",
        "unlimited",
        "14/s\n",
    ],
)
def test_rate_that_is_none_is_refused_with_the_form(api: ControlPlane, rate: str) -> None:
    said = refusal(api, put(relay(), "spec.limits.rate", rate))
    assert "spec.limits.rate: Invalid value" in said
    assert "rate is written N/s, N/m, N/h or N/d, for example 14/s" in said


def test_several_faults_are_all_told_at_once(api: ControlPlane) -> None:
    said = refusal(api, changed(campaign(), {"spec.message.text": None, "spec.senders": {"minReplicas": 30}}))
    assert "text or html is required" in said
    assert "minReplicas must not be more than maxReplicas" in said
