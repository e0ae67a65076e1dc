"""What Argo CD shows of campaigns and relays: our Lua over the operator's own statuses, with what libraries it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gitops import files, lua
from gitops.reasons import REASONS
from gitops.relays import HEALTH, RELAYS
from gitops.scenes import ACTIONS, SCENES, Scene
from mailfleet_operator.conditions import Type
from reasons import of_campaigns, of_relays

if TYPE_CHECKING:
    from pathlib import Path

LUA = {name: path.read_text() for name, path in (("usual", files.CAMPAIGN / "health.lua"), ("strict", files.STRICT))}
DISCOVERY = (files.CAMPAIGN / "actions/discovery.lua").read_text()
WORDS = {"Healthy", "Progressing", "Suspended", "Degraded"}


def act(action: str, manifest: dict[str, Any]) -> dict[str, Any]:
    script = (files.CAMPAIGN / "actions" / action / "action.lua").read_text()
    after: dict[str, Any] = lua.run(script, manifest)
    return after


def can(manifest: dict[str, Any]) -> dict[str, bool]:
    return {name: not action["disabled"] for name, action in lua.run(DISCOVERY, manifest).items()}


@pytest.mark.parametrize("scene", [*SCENES, *REASONS], ids=lambda scene: scene.name)
def test_health_of_a_campaign(scene: Scene) -> None:
    health = lua.run(LUA["usual"], scene.object())
    assert health["status"] == scene.health, health
    assert health["message"]
    assert lua.run(LUA["strict"], scene.object())["status"] == (scene.strict or scene.health)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_actions_that_a_person_can_take(scene: Scene) -> None:
    assert can(scene.object()) == scene.can


@pytest.mark.parametrize("name", RELAYS)
def test_health_of_a_relay(name: str) -> None:
    health = lua.run((files.RELAY / "health.lua").read_text(), RELAYS[name])
    assert health["status"] == HEALTH[name], health
    assert health["message"]


@pytest.mark.parametrize(
    ("folder", "reasons"), [(files.CAMPAIGN, of_campaigns()), (files.RELAY, of_relays())], ids=["campaign", "relay"]
)
def test_every_reason_of_a_condition_has_a_health(folder: Path, reasons: set[str]) -> None:
    tests = yaml.safe_load((folder / "health_test.yaml").read_text())["tests"]
    told: dict[str, list[str]] = {}
    for one in tests:
        status = yaml.safe_load((folder / one["inputPath"]).read_text()).get("status", {})
        for condition in status.get("conditions", []):
            told.setdefault(condition["reason"], []).append(one["healthStatus"]["message"])
    assert set(told) == reasons
    assert all(message for messages in told.values() for message in messages)


def test_a_degraded_campaign_says_its_reason_first() -> None:
    for scene in (*SCENES, *REASONS):
        if scene.health == "Degraded":
            reason, colon, words = lua.run(LUA["usual"], scene.object())["message"].partition(": ")
            assert reason in of_campaigns(), scene.name
            assert colon, scene.name
            assert words, scene.name


def test_trouble_is_told_with_reason_and_remedy() -> None:
    health = lua.run(LUA["usual"], files.scene("credentials-missing").object())
    assert health["message"].startswith('CredentialsMissing: secret "mailfleet" not found: create it')


def test_progress_is_rough() -> None:
    """9,000 sent and 1,000 skipped of 20,000."""
    assert lua.run(LUA["usual"], files.scene("sending").object())["message"] == "Sending, 50 % or more are done"


def test_actions_write_the_spec_and_nothing_else() -> None:
    for action, name in ACTIONS:
        before = files.scene(name).object()
        after = act(action, before)
        assert {**after, "spec": None} == {**before, "spec": None}
        changed = {k: v for k, v in after["spec"].items() if before["spec"].get(k) != v}
        assert changed in (
            {"suspend": True},
            {"suspend": False},
            {"cancel": True},
            {"retryFailed": {"generation": 2, "codes": ["5.7.1"]}},
            {"retryFailed": {"generation": 1, "codes": ["5.7.1"]}},
        )


@pytest.mark.parametrize(("action", "name"), ACTIONS)
def test_two_clicks_are_one(action: str, name: str) -> None:
    once = act(action, files.scene(name).object())
    assert act(action, once) == once
    assert not can(once)[action]


conditions = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from([*map(str, Type), "Later"]), "status": st.sampled_from(["True", "False", "Unknown"])},
        optional={"reason": st.just("Why"), "message": st.just("for people")},
    )
)
numbers = st.dictionaries(st.sampled_from(["planned", "remaining", "deferred", "failed"]), st.integers(0, 10**9))


@given(conditions=conditions, recipients=numbers, generation=st.integers(1, 3))
def test_whatever_a_status_says_has_a_health(
    conditions: list[dict[str, str]], recipients: dict[str, int], generation: int
) -> None:
    status = {"observedGeneration": 2, "conditions": conditions, "recipients": recipients}
    manifest = {"metadata": {"generation": generation}, "spec": {}, "status": status}
    last = {c["type"]: c["status"] for c in conditions}
    for script in LUA.values():
        health = lua.run(script, manifest)
        assert health["status"] in WORDS
        assert health["message"]
        if generation > 2:
            assert health["status"] == "Progressing"
        elif "True" in (last.get("Failed"), last.get("Stalled")):
            assert health["status"] == "Degraded"
    assert set(can(manifest)) == {"suspend", "resume", "cancel", "retry-failed"}


def test_files_are_made_of_the_rules_as_they_are() -> None:
    """Mend it with: make argocd"""
    made = dict(files.made())
    for path, text in made.items():
        assert path.read_text() == text, path
    kept = {f for f in files.ARGOCD.rglob("*.yaml") if "application" not in f.name}
    assert kept | {files.STRICT} == set(made)


def test_config_map_holds_the_scripts_as_they_are() -> None:
    for name, health in files.MADE_FROM.items():
        data = yaml.safe_load((files.ARGOCD / name).read_text())["data"]
        assert data["resource.customizations.health.mailfleet.dev_EmailCampaign"] == health.read_text()
        actions = yaml.safe_load(data["resource.customizations.actions.mailfleet.dev_EmailCampaign"])
        assert {d["name"] for d in actions["definitions"]} == {"suspend", "resume", "cancel", "retry-failed"}
        for definition in actions["definitions"]:
            script = files.CAMPAIGN / "actions" / definition["name"] / "action.lua"
            assert definition["action.lua"] == script.read_text()
