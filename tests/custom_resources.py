"""The project's custom resource definitions and examples, as the tests read them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
CRDS = ROOT / "crds"
EXAMPLES = ROOT / "examples"
CHARTS = {"mailfleet": ROOT / "charts/mailfleet", "demo": ROOT / "deploy/demo/chart"}


def definition(plural: str) -> dict[str, Any]:
    """The definition of `emailcampaigns` or `emailrelays`."""
    body: dict[str, Any] = yaml.safe_load((CRDS / f"{plural}.mailfleet.dev.yaml").read_text())
    return body


def schema(plural: str) -> dict[str, Any]:
    """Its OpenAPI schema, from the root on."""
    body: dict[str, Any] = definition(plural)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return body


def walk(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each node of a schema with its path: `spec.recipients.table.match[].column`, `spec.message.headers{}`."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}".lstrip("."))
    if "items" in node:
        yield from walk(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from walk(node["additionalProperties"], path + "{}")


def campaign(name: str = "autumn-news") -> dict[str, Any]:
    """The smallest valid EmailCampaign."""
    return {
        "apiVersion": "mailfleet.dev/v1alpha1",
        "kind": "EmailCampaign",
        "metadata": {"name": name},
        "spec": {
            "relayRef": {"name": "ses"},
            "recipients": {"table": {"databaseSecretRef": {"name": "shop-db", "key": "url"}, "name": "subscribers"}},
            "message": {"from": "Example Shop <news@example.com>", "subject": "Autumn", "text": "Hello"},
        },
    }


def relay(name: str = "ses") -> dict[str, Any]:
    """The smallest valid EmailRelay."""
    return {
        "apiVersion": "mailfleet.dev/v1alpha1",
        "kind": "EmailRelay",
        "metadata": {"name": name},
        "spec": {"host": "smtp.example.com", "limits": {"rate": "14/s"}},
    }


def put(manifest: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Set the field at a path as `spec.message.subject`, or take it away with None; in place, and returned."""
    *parents, last = path.split(".")
    node = manifest
    for parent in parents:
        node = node.setdefault(parent, {})
    if value is None:
        node.pop(last, None)
    else:
        node[last] = value
    return manifest
