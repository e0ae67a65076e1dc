"""docs/reference/api.md: every field of the custom resources, made from their definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from mailfleet_release.places import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = ROOT / "docs/reference/api.md"
CRDS = ROOT / "crds"
_HEAD = """\
<!-- Made by `make api-reference` from crds/: change those. -->
# Fields of EmailCampaign and EmailRelay
`kubectl explain emailcampaign.spec` says the same. A field in **bold** must be given. Under each resource stand the
rules that go beyond single fields, in the words of the API server when one is broken.
"""

Node = dict[str, Any]


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_resource(yaml.safe_load(file.read_text())) for file in sorted(CRDS.glob("*.yaml")))


def _resource(definition: Node) -> str:
    (version,) = definition["spec"]["versions"]
    names, schema = definition["spec"]["names"], version["schema"]["openAPIV3Schema"]
    text = f"\n## {names['kind']}\n{_flat(schema['description'])}\n"
    short = ", ".join(f"`{n}`" for n in names["shortNames"])
    text += f"\napiVersion `{definition['spec']['group']}/{version['name']}`, short name {short}.\n"
    for part in ("spec", "status"):
        node = schema["properties"][part]
        text += f"\n### {names['kind']}: {part}\n{_flat(node['description'])}\n\n"
        text += "| field | type | default | what it is |\n|---|---|---|---|\n"
        text += "".join(_rows(node, part))
    rules = sorted(set(_rules(schema)))
    return text + f"\n### {names['kind']}: rules\n" + "".join(f"- {rule}\n" for rule in rules)


def _rows(node: Node, path: str) -> Iterator[str]:
    for name, child in node.get("properties", {}).items():
        own = f"{path}.{name}"
        shown = f"**`{own}`**" if name in node.get("required", ()) else f"`{own}`"
        default = f"`{_inline(child['default'])}`" if "default" in child else ""
        yield f"| {shown} | {_type(child)} | {default} | {_cell(child)} |\n"
        inner, mark = child, ""
        while "items" in inner:
            inner, mark = inner["items"], f"{mark}[]"
        yield from _rows(inner, own + mark)


def _type(node: Node) -> str:
    if "items" in node:
        return f"list of {_type(node['items'])}"
    if "enum" in node:
        return " \\| ".join(map(str, node["enum"]))
    if node.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if isinstance(node.get("additionalProperties"), dict):
        return f"map of {_type(node['additionalProperties'])}"
    kind = str(node.get("type", "any"))
    return "time" if node.get("format") == "date-time" else kind


def _cell(node: Node) -> str:
    limits = {
        "minimum": "at least {}",
        "maximum": "at most {}",
        "maxLength": "at most {} characters",
        "maxItems": "at most {} items",
        "maxProperties": "at most {} entries",
    }
    told = ", ".join(text.format(node[key]) for key, text in limits.items() if key in node)
    text = _flat(node.get("description", "")).replace("|", "\\|").replace("<", "&lt;")
    return f"{text} ({told})" if told else text


def _rules(node: Node) -> Iterator[str]:
    for rule in node.get("x-kubernetes-validations", ()):
        yield _flat(rule.get("message") or rule["rule"])
    for child in node.get("properties", {}).values():
        yield from _rules(child)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from _rules(node[key])


def _inline(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def _flat(text: str) -> str:
    return " ".join(text.split())
