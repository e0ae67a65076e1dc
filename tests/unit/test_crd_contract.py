"""The custom resources agree with the contract and with the operator's reading of them, field by field."""

from __future__ import annotations

import re
import types
from enum import Enum
from typing import TYPE_CHECKING, Any, get_args, get_origin

import pytest

from custom_resources import schema
from mailfleet_operator.resources import CampaignSpec, RelaySpec
from mailfleet_sender.contract.campaign import Campaign
from mailfleet_sender.contract.model import Model
from mailfleet_sender.contract.rate import PATTERN
from mailfleet_sender.contract.relay import Relay
from mailfleet_sender.message.headers import RESERVED, check_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

CAMPAIGN = schema("emailcampaigns")["properties"]["spec"]
RELAY = schema("emailrelays")["properties"]["spec"]

# What a model has and no manifest says: identity, what the operator derives, what a later version brings.
NOT_IN_MANIFESTS = {"namespace", "name", "authenticate"}
PAIRS = [(Campaign, CAMPAIGN), (Relay, RELAY), (CampaignSpec, CAMPAIGN), (RelaySpec, RELAY)]


def inner(annotation: Any) -> Any:
    """The type that counts: of `X | None` and `tuple[X, ...]`, X."""
    if get_origin(annotation) in (types.UnionType, tuple) or "Union" in str(get_origin(annotation)):
        return inner(next(arg for arg in get_args(annotation) if arg not in (type(None), Ellipsis)))
    return annotation


def fields(
    model: type[Model], node: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, FieldInfo, dict[str, Any] | None]]:
    """Each field of the model and of the models in it, with its node of the schema (None: it has none)."""
    for field in model.model_fields.values():
        path = f"{prefix}{field.alias}"
        child = node.get("properties", {}).get(field.alias)
        if child is not None:
            child = child | {"required here": field.alias in node.get("required", ())}
        yield path, field, child
        kind = inner(field.annotation)
        if child is not None and isinstance(kind, type) and issubclass(kind, Model):
            yield from fields(kind, child.get("items", child), f"{path}.")


def plain(value: Any) -> Any:
    """A model's default as a manifest would say it; nothing where a manifest would say nothing."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Model):
        return {
            k: v
            for k, v in value.model_dump(mode="json", by_alias=True, exclude_none=True).items()
            if v not in ((), {}, [])
        }
    return None if value in ((), {}, []) else value


CASES = [
    pytest.param(field, node, path, id=f"{model.__name__}:{path}")
    for model, root in PAIRS
    for path, field, node in fields(model, root)
    if path not in NOT_IN_MANIFESTS
]


@pytest.mark.parametrize(("field", "node", "path"), CASES)
def test_field_is_in_the_definition(field: FieldInfo, node: dict[str, Any] | None, path: str) -> None:
    assert node is not None, f"{path} is in the model, not in the definition"


@pytest.mark.parametrize(("field", "node", "path"), CASES)
def test_default_is_the_same(field: FieldInfo, node: dict[str, Any], path: str) -> None:
    if field.is_required():
        assert "default" not in node
        return
    default = plain(field.get_default(call_default_factory=True))
    if node["type"] == "object":  # an object's default is that of its fields, each compared for itself
        given = {name: child["default"] for name, child in node.get("properties", {}).items() if "default" in child}
        assert given == {name: value for name, value in (default or given).items() if name in given}
    else:
        assert node.get("default") == default


@pytest.mark.parametrize(("field", "node", "path"), CASES)
def test_required_is_required(field: FieldInfo, node: dict[str, Any], path: str) -> None:
    assert field.is_required() == node["required here"]


@pytest.mark.parametrize(("field", "node", "path"), CASES)
def test_words_and_bounds_fit(field: FieldInfo, node: dict[str, Any], path: str) -> None:
    kind = inner(field.annotation)
    if isinstance(kind, type) and issubclass(kind, Enum):
        assert node.get("items", node)["enum"] == [word.value for word in kind]
    for bound in field.metadata:
        if (least := getattr(bound, "ge", None)) is not None:
            assert node["minimum"] >= least
        if (most := getattr(bound, "le", None)) is not None:
            assert node["maximum"] <= most


def test_rate_is_written_as_the_contract_reads_it() -> None:
    rate = RELAY["properties"]["limits"]["properties"]["rate"]
    assert rate["pattern"] == PATTERN.pattern
    assert PATTERN.pattern in rate["x-kubernetes-validations"][0]["rule"]


@pytest.mark.parametrize(("models", "root"), [((Campaign, CampaignSpec), CAMPAIGN), ((RelaySpec,), RELAY)])
def test_every_field_of_a_spec_is_read_by_somebody(models: tuple[type[Model], ...], root: dict[str, Any]) -> None:
    known = {path for model in models for path, _, node in fields(model, root) if node is not None}
    raw = ("senders.resources", "senders.tolerations")  # passed on to the pods as they are

    def unread(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
        for name, child in node.get("properties", {}).items():
            path = f"{prefix}{name}"
            if path not in known:
                yield path
            elif path not in raw:
                yield from unread(child.get("items", child), f"{path}.")

    assert list(unread(root)) == []


def test_headers_refused_here_are_those_that_the_composer_refuses() -> None:
    """Else a campaign is refused only when it is planned, or for no reason."""
    rules = [
        rule["rule"] for rule in CAMPAIGN["properties"]["message"]["properties"]["headers"]["x-kubernetes-validations"]
    ]
    (words,) = [found[1] for rule in rules if (found := re.search(r"\^\((from.*)\)\$", rule))]
    names = {word.removesuffix(".*") for word in words.split("|")}
    assert names == {*RESERVED, "content-", "resent-"}
    check_name("X" * 70)
    with pytest.raises(ValueError, match="no header name"):
        check_name("X" * 71)
    assert any("size(name) <= 70" in rule for rule in rules)
