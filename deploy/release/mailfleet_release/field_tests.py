"""docs/reference/fields.md: which test shows each field of the custom resources, from tests/reference/fields.yaml."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

import yaml

from mailfleet_release.places import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PAGE = ROOT / "docs/reference/fields.md"
SOURCE = ROOT / "tests/reference/fields.yaml"
CRDS = ROOT / "crds"
_HEAD = """\
<!-- Made by `make api-reference` from tests/reference/fields.yaml: change that. -->
# Which test shows each field
A field is in the definitions only if it works: with each stands a test that fails if the field does nothing.
[api.md](api.md) says what each is for. Tests of `tests/unit` need Python alone, those of `tests/integration` real
servers, those of `tests/api` a real kube-apiserver, those of `tests/e2e` a node.
"""

Shown = list[str] | dict[str, str]
"""Names of tests, or {"none": why there is none}."""


def shown() -> dict[str, dict[str, Shown]]:
    """By kind and field."""
    read: dict[str, dict[str, Shown]] = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    return read


def twice(text: str) -> list[str]:
    """Keys of a YAML document that stand twice in one mapping; a reader takes the last one and says nothing."""
    found: list[str] = []

    def look(node: yaml.Node | None) -> None:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            found.extend(key for n, key in enumerate(keys) if key in keys[:n])
            for _, value in node.value:
                look(value)

    look(yaml.compose(text))
    return found


def fields() -> dict[str, list[str]]:
    """The fields of spec and status of each kind that hold a value, as `spec.recipients.table.match[].column`."""
    found = {}
    for file in sorted(CRDS.glob("*.yaml")):
        spec = yaml.safe_load(file.read_text(encoding="utf-8"))["spec"]
        (version,) = spec["versions"]
        parts = version["schema"]["openAPIV3Schema"]["properties"]
        found[spec["names"]["kind"]] = [path for part in ("spec", "status") for path in _leaves(parts[part], part)]
    return found


def _leaves(node: Mapping[str, Any], path: str) -> Iterator[str]:
    if "items" in node:
        yield from _leaves(node["items"], f"{path}[]")
    elif node.get("properties"):
        for name, child in node["properties"].items():
            yield from _leaves(child, f"{path}.{name}")
    else:
        yield path


def tests_of(source: str) -> set[str]:
    """The tests of a file as pytest names them, by its text: `test_x`, `TestY::test_z`."""
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            methods = (n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}::{method.name}" for method in methods}
    return {name for name in found if name.rpartition("::")[2].startswith("test_")}


def page() -> str:
    """The whole page."""
    text = _HEAD
    for kind, entries in shown().items():
        text += f"\n## {kind}\n| field | tests |\n|---|---|\n"
        for field, tests in entries.items():
            told = f"none: {tests['none']}" if isinstance(tests, dict) else "<br>".join(map(_told, tests))
            text += f"| `{field}` | {told} |\n"
    return text


def _told(test: str) -> str:
    file, _, name = test.partition("::")
    words = name.rpartition("::")[2].removeprefix("test_").replace("_", " ")
    return f"{words} ([{file.removeprefix('tests/')}](../../{file}))"
