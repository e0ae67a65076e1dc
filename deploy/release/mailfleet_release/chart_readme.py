"""The chart's README, its table of values made from the comments of values.yaml.

A value's comment is the block of lines right above its key; values that are mappings with commented keys are opened.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from mailfleet_release.places import CHART, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = CHART / "README.md"
TEMPLATE = ROOT / "deploy/release/chart-readme.md"
_KEY = re.compile(r"^( *)([A-Za-z]+):(.*)$")


@dataclass(frozen=True, slots=True)
class Value:
    """A value that can be set: its path, its default, and its comment (empty if it has none)."""

    path: str
    default: Any
    comment: str


def values(text: str) -> Iterator[Value]:
    """Each commented value, and each that is no mapping and has no comment above it or above a parent."""
    tree = yaml.safe_load(text)
    comment: list[str] = []
    parents: list[tuple[int, str]] = []
    told: int | None = None  # indent of a commented mapping: what is inside belongs to its comment
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            comment.append(line.strip().removeprefix("#").strip())
            continue
        match = _KEY.match(line)
        if not line or not match:
            comment = []
            continue
        indent, name = len(match[1]), match[2]
        if told is not None and indent > told:
            continue
        told = None
        parents = [p for p in parents if p[0] < indent]
        path = [p[1] for p in parents] + [name]
        default = tree
        for part in path:
            default = default[part]
        if comment or match[3].strip():
            yield Value(".".join(path), default, " ".join(comment))
            told = indent
        parents.append((indent, name))
        comment = []


def page() -> str:
    """The README."""
    rows = "".join(f"| `{v.path}` | {_shown(v.default)} | {_cell(v.comment)} |\n" for v in values(_values_text()))
    return TEMPLATE.read_text().replace(
        "<!-- values -->\n", f"| value | default | what it means |\n|---|---|---|\n{rows}"
    )


def _values_text() -> str:
    return (CHART / "values.yaml").read_text()


def _shown(default: Any) -> str:
    return f"`{json.dumps(default)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
