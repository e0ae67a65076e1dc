"""The chart's files, without Helm: copies, values, comments."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml

from custom_resources import CHARTS, CRDS, ROOT
from mailfleet_release import chart_readme

if TYPE_CHECKING:
    from collections.abc import Iterator

CHART = CHARTS["mailfleet"]
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def leaves(value: Any, path: str = "") -> Iterator[str]:
    """The paths of all values that are no further mapping."""
    if isinstance(value, dict) and value and not path.endswith(("resources", "Context")):
        for name, child in value.items():
            yield from leaves(child, f"{path}.{name}".lstrip("."))
    else:
        yield path


def templates(chart: str) -> str:
    return "\n".join(file.read_text() for file in sorted((CHARTS[chart] / "templates").rglob("*")) if file.is_file())


def test_crds_of_the_chart_are_the_canonical_ones() -> None:
    """Mend it with: cp crds/*.yaml charts/mailfleet/files/crds/"""
    copies = {file.name: file.read_text() for file in (CHART / "files/crds").iterdir()}
    assert copies == {file.name: file.read_text() for file in CRDS.iterdir()}


def test_version_is_the_distributions() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == version[1]


@pytest.mark.parametrize("chart", CHARTS)
def test_every_value_is_used(chart: str) -> None:
    text = templates(chart)
    for path in leaves(yaml.safe_load((CHARTS[chart] / "values.yaml").read_text())):
        # Images, resources and passwords are handed on as a whole.
        whole = re.sub(r"^(images\.[a-z]+|[a-z]+\.image|resources|passwords)\..*", r"\1", path)
        names = {path, whole, whole.split(".")[0] if chart == "demo" else whole}
        assert any(re.search(rf"[.$]Values\.{re.escape(name)}\b", text) for name in names), path


def test_every_value_that_a_template_names_exists() -> None:
    for path in set(re.findall(r"\.Values\.([A-Za-z.]+[A-Za-z])", templates("mailfleet"))):
        node = VALUES
        for name in path.split("."):
            assert name in node, path
            node = node[name]


def test_every_value_has_a_comment() -> None:
    text = (CHART / "values.yaml").read_text()
    found = {value.path: value for value in chart_readme.values(text)}
    assert [path for path, value in found.items() if not value.comment] == []
    for path in leaves(VALUES):
        assert any(path == known or path.startswith(f"{known}.") for known in found), path


def test_readme_is_made_of_the_values_as_they_are() -> None:
    """Mend it with: make chart-readme"""
    assert chart_readme.PAGE.read_text() == chart_readme.page()


def test_artifact_hub_is_told_of_every_definition() -> None:
    notes = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]
    told = {(crd["name"], crd["kind"], crd["version"]) for crd in yaml.safe_load(notes["artifacthub.io/crds"])}
    definitions = [yaml.safe_load(file.read_text()) for file in CRDS.iterdir()]
    assert told == {
        (d["metadata"]["name"], d["spec"]["names"]["kind"], d["spec"]["versions"][0]["name"]) for d in definitions
    }
    examples = yaml.safe_load(notes["artifacthub.io/crdsExamples"])
    assert {example["kind"] for example in examples} == {d["spec"]["names"]["kind"] for d in definitions}


def test_schema_knows_every_value_and_no_other() -> None:
    jsonschema.validate(VALUES, SCHEMA)
    for path in leaves(VALUES):
        *parents, last = path.split(".")
        wrong = json.loads(json.dumps(VALUES))
        node = wrong
        for parent in parents:
            node = node[parent]
        node[last + "x"] = node.pop(last)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("campaignNamespaces", ["Marketing"]),
        ("campaignNamespaces", ["a", "a"]),
        ("sharedAccounts", ["a,b"]),
        ("sharedAccounts", ["a/b"]),
        ("ledger.url", "mysql://x/y"),
        ("redis.url", "x:6379"),
        ("operator.image.pullPolicy", "Sometimes"),
        ("sender.image.registry", "https://registry.example.com"),
        ("operator.image.digest", "sha256:12"),
        ("operator.logLevel", "LOUD"),
        ("imagePullSecrets", ["name"]),
        ("maxSenders", 0),
        ("maxSenders", 1001),
        ("requireStartTime", "yes"),
        ("networkPolicy.senderEgress", [{"port": 25}]),
        ("extraObjects", [1]),
        ("senderSecretName", ""),
    ],
)
def test_schema_refuses(path: str, value: object) -> None:
    wrong = json.loads(json.dumps(VALUES))
    *parents, last = path.split(".")
    node = wrong
    for parent in parents:
        node = node[parent]
    node[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)


def test_demo_values_are_values_of_the_chart() -> None:
    demo = yaml.safe_load((ROOT / "deploy/demo/values.yaml").read_text())
    jsonschema.validate({**VALUES, **demo, "crds": {**VALUES["crds"], **demo["crds"]}}, SCHEMA)
