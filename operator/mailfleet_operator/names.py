"""Names and labels of the operator's children. Pure.

A name holds a hash of what the child is for, so the same decision makes the same name and a second
attempt to create it finds the first.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

LABEL_CAMPAIGN = "mailfleet.dev/campaign"
LABEL_RUN_ID = "mailfleet.dev/run-id"
LABEL_WAVE = "mailfleet.dev/wave"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "mailfleet-operator"
ANNOTATION_RUN = "mailfleet.dev/run"
ANNOTATION_ATTEMPT = "mailfleet.dev/attempt"
ANNOTATION_MADE_FOR = "mailfleet.dev/made-for"
ANNOTATION_RELAY = "mailfleet.dev/relay"
"""An annotation: a relay's name may be longer than a label's value."""
ANNOTATION_ARGO = "argocd.argoproj.io/ignore-resource-updates"

STEM = 40
"""Characters of the campaign's name in a child's: a pod's host name, `<job>-<index>`, has at most 63, and
the index up to 5."""
RELAY_STEM = 36
"""The same of a relay's name: Kubernetes cuts a pod's name at 58 characters before its own five, and a pod that no
longer begins with its Job's name could not be told from another's."""


def digest(*parts: Any) -> str:
    """Eight hexadecimal digits for what the parts say."""
    text = json.dumps(parts, separators=(",", ":"), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def stem(campaign: str) -> str:
    """The campaign's name, shortened so that a child's name remains a DNS label."""
    return campaign[:STEM].rstrip("-")


def plan_job(campaign: str, namespace: str, run: int, made_for: str, attempt: int) -> str:
    """The name of a plan Job: another definition or attempt is another Job."""
    return f"{stem(campaign)}-plan-{digest(namespace, campaign, run, made_for, attempt)}"


def wave_job(campaign: str, namespace: str, run: int, wave: int) -> str:
    """The name of a wave's Job."""
    return f"{stem(campaign)}-send-{digest(namespace, campaign, run, wave)}"


def preflight_job(relay: str, namespace: str, made_for: str, attempt: int, after: str) -> str:
    """The name of a preflight: other settings, another attempt, or another one before it is another Job."""
    short = relay.replace(".", "-")[:RELAY_STEM].rstrip("-")
    return f"{short}-preflight-{digest(namespace, relay, made_for, attempt, after)}"


def relay_labels(relay: str) -> dict[str, str]:
    """The labels of a relay's child."""
    return {
        "app.kubernetes.io/name": "mailfleet",
        "app.kubernetes.io/instance": relay[:63].rstrip("-."),
        LABEL_COMPONENT: "preflight",
        LABEL_MANAGED_BY: MANAGER,
        "app.kubernetes.io/part-of": "mailfleet",
    }


def labels(campaign: str, run_id: str, component: str, wave: int | None = None) -> dict[str, str]:
    """The labels of a child: its own, never copied from the campaign."""
    return {
        "app.kubernetes.io/name": "mailfleet",
        "app.kubernetes.io/instance": campaign,
        LABEL_COMPONENT: component,
        LABEL_MANAGED_BY: MANAGER,
        "app.kubernetes.io/part-of": "mailfleet",
        LABEL_CAMPAIGN: campaign,
        LABEL_RUN_ID: run_id,
        **({LABEL_WAVE: str(wave)} if wave is not None else {}),
    }
