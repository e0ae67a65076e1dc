"""JSON Schemas of the Kubernetes kinds that the chart makes, from the API servers' own OpenAPI documents.

The documents lie in the Go module of each release (k8s.io/kubernetes, api/openapi-spec/swagger.json), which go.sum's
database vouches for; what the kinds need of them is kept in the project, so that tests need no network.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from mailfleet_release.places import ROOT

FOLDER = ROOT / "tests/schemas"
RELEASES = ("1.33.13", "1.34.4", "1.35.4")
"""The Kubernetes versions that are supported, each by its newest release at hand."""
KINDS = frozenset(
    {
        ("", "ConfigMap"), ("", "Namespace"), ("", "Pod"), ("", "Secret"), ("", "Service"), ("", "ServiceAccount"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"), ("apps", "Deployment"),
        ("batch", "CronJob"), ("batch", "Job"), ("networking.k8s.io", "NetworkPolicy"),
        ("rbac.authorization.k8s.io", "ClusterRole"), ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
        ("rbac.authorization.k8s.io", "Role"), ("rbac.authorization.k8s.io", "RoleBinding"),
    }
)  # fmt: skip
EITHER = {"oneOf": [{"type": "string"}, {"type": "number"}]}
WRITTEN_EITHER_WAY = ("util.intstr.IntOrString", "api.resource.Quantity")
"""Kinds of values that the document calls strings, and the API takes as numbers too."""
KEPT = ("type", "properties", "required", "items", "additionalProperties", "$ref")
_REFERENCE = re.compile(r'"#/definitions/([^"]+)"')


def file(release: str) -> Path:
    """Where a release's schemas are kept."""
    return FOLDER / f"kubernetes-{release.rpartition('.')[0]}.json"


def page(release: str) -> str:
    """The schemas of a release: the kinds by the name of their kubeconform file, and what they are made of."""
    command = ["go", "mod", "download", "-json", f"k8s.io/kubernetes@v{release}"]
    module = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout)
    document = json.loads((Path(module["Dir"]) / "api/openapi-spec/swagger.json").read_text(encoding="utf-8"))
    every: dict[str, Any] = document["definitions"]
    kinds, parts = {}, {}
    for name, definition in every.items():
        for told in definition.get("x-kubernetes-group-version-kind", ()):
            if (told["group"], told["kind"]) in KINDS:
                label = "-".join(filter(None, (told["kind"].lower(), told["group"].split(".")[0], told["version"])))
                kinds[label] = name
    waiting = list(kinds.values())
    while waiting:
        name = waiting.pop()
        if name not in parts:
            parts[name] = EITHER if name.endswith(WRITTEN_EITHER_WAY) else _strict(every[name])
            waiting += _REFERENCE.findall(json.dumps(parts[name]))
    lines = ",\n".join(f" {json.dumps(k)}: {json.dumps(v, sort_keys=True)}" for k, v in sorted(parts.items()))
    return f'{{"kinds": {json.dumps(kinds, sort_keys=True)},\n"definitions": {{\n{lines}\n}}}}\n'


def write(release: str, folder: Path) -> None:
    """One file a kind, as kubeconform looks for them."""
    kept = json.loads(file(release).read_text(encoding="utf-8"))
    for label, name in kept["kinds"].items():
        schema = {"$ref": f"#/definitions/{name}", "definitions": kept["definitions"]}
        (folder / f"{label}.json").write_text(json.dumps(schema), encoding="utf-8")


def _strict(node: Any) -> Any:
    """What a validator needs of it, and no field that the API does not know."""
    if isinstance(node, list):
        return [_strict(part) for part in node]
    if not isinstance(node, dict):
        return node
    found = {key: node[key] for key in KEPT if key in node}
    if "properties" in found:
        found["properties"] = {name: _strict(part) for name, part in found["properties"].items()}
        found.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if key in found:
            found[key] = _strict(found[key])
    return found
