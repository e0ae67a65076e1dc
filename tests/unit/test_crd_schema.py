"""What holds for every field of the custom resources, whatever it means."""

from __future__ import annotations

from typing import Any

import pytest

from custom_resources import EXAMPLES, definition, schema, walk
from mailfleet_release import api_reference

PLURALS = ("emailcampaigns", "emailrelays")
NODES = [(plural, path, node) for plural in PLURALS for path, node in walk(schema(plural))]
SPEC_NODES = [row for row in NODES if row[1].startswith("spec")]


def ids(rows: list[tuple[str, str, dict[str, Any]]]) -> list[str]:
    return [f"{plural}:{path or 'root'}" for plural, path, _ in rows]


NAMED = [
    row
    for row in NODES
    if not row[1].endswith(("{}", "metadata")) and (row[2]["type"] != "string" or not row[1].endswith("[]"))
]
STRINGS = [row for row in NODES if row[2].get("type") == "string"]
LISTS = [row for row in NODES if row[2].get("type") == "array"]
MAPS = [row for row in NODES if isinstance(row[2].get("additionalProperties"), dict)]
INTEGERS = [row for row in SPEC_NODES if row[2].get("type") == "integer"]


@pytest.mark.parametrize(("plural", "path", "node"), NAMED, ids=ids(NAMED))
def test_every_field_is_described(plural: str, path: str, node: dict[str, Any]) -> None:
    text = node.get("description", "")
    assert text[:1].isupper() or text.startswith(("true ", "planned "))
    assert text.endswith(".")
    assert len(text) >= 10


@pytest.mark.parametrize(("plural", "path", "node"), STRINGS, ids=ids(STRINGS))
def test_every_string_has_a_limit(plural: str, path: str, node: dict[str, Any]) -> None:
    if path not in ("apiVersion", "kind"):
        assert "maxLength" in node or "enum" in node or node.get("format") == "date-time"


@pytest.mark.parametrize(("plural", "path", "node"), LISTS, ids=ids(LISTS))
def test_every_list_has_a_limit_and_says_how_it_merges(plural: str, path: str, node: dict[str, Any]) -> None:
    assert node["maxItems"] <= 256
    assert node["x-kubernetes-list-type"] in ("atomic", "map")


@pytest.mark.parametrize(("plural", "path", "node"), MAPS, ids=ids(MAPS))
def test_every_map_has_a_limit(plural: str, path: str, node: dict[str, Any]) -> None:
    assert node["maxProperties"] <= 32


@pytest.mark.parametrize(("plural", "path", "node"), INTEGERS, ids=ids(INTEGERS))
def test_every_number_of_a_spec_has_its_bounds(plural: str, path: str, node: dict[str, Any]) -> None:
    if path != "spec.senders.tolerations[].tolerationSeconds":  # Kubernetes itself takes any
        assert node["minimum"] < node["maximum"]
        assert node["minimum"] <= node.get("default", node["minimum"]) <= node["maximum"]


@pytest.mark.parametrize("plural", PLURALS)
def test_enums_are_in_camel_case(plural: str) -> None:
    for path, node in walk(schema(plural)):
        for word in node.get("enum", ()):
            assert word[0].isupper(), (path, word)
            assert word.isalnum(), (path, word)


@pytest.mark.parametrize("plural", PLURALS)
def test_every_rule_tells_people_what_to_do(plural: str) -> None:
    rules = [rule for _, node in walk(schema(plural)) for rule in node.get("x-kubernetes-validations", ())]
    assert rules
    for rule in rules:
        assert len(rule["message"]) > 15, rule


@pytest.mark.parametrize("plural", PLURALS)
def test_default_of_an_object_says_what_its_fields_default_to(plural: str) -> None:
    """The API server judges rules on the default itself, before the fields' own defaults are filled in."""
    for path, node in walk(schema(plural)):
        if node.get("default"):
            fields = {
                name: child["default"] for name, child in node.get("properties", {}).items() if "default" in child
            }
            if node["type"] == "object":
                assert node["default"] == fields, path


@pytest.mark.parametrize(("plural", "short"), [("emailcampaigns", "ec"), ("emailrelays", "er")])
def test_resources_have_a_short_name_a_category_and_a_status_of_their_own(plural: str, short: str) -> None:
    spec = definition(plural)["spec"]
    assert spec["group"] == "mailfleet.dev"
    assert spec["names"]["shortNames"] == [short]
    assert spec["names"]["categories"] == ["mailfleet"]
    (version,) = spec["versions"]
    assert version["name"] == "v1alpha1"
    assert version["subresources"] == {"status": {}}


def test_suspend_is_left_out_of_the_examples() -> None:
    """Else a pause made with kubectl would be undone by the next sync from Git (GitOps)."""
    for file in EXAMPLES.glob("*.yaml"):
        assert "suspend" not in file.read_text(), file


def test_reference_is_made_of_the_definitions_as_they_are() -> None:
    """Mend it with: make api-reference"""
    assert api_reference.PAGE.read_text() == api_reference.page()


@pytest.mark.parametrize("plural", ["emailcampaigns", "emailrelays"])
def test_reference_has_every_field(plural: str) -> None:
    page = api_reference.page()
    for path, _ in walk(schema(plural)):
        if path.startswith(("spec.", "status.")) and "{}" not in path and not path.endswith("[]"):
            assert f"`{path}`" in page, path
