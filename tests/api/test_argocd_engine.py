"""The Lua of deploy/argocd on Argo CD's own engine: the same answers as on lupa, for every state."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gitops import files, lua
from gitops.reasons import REASONS
from gitops.relays import RELAYS
from gitops.scenes import ACTIONS, SCENES
from mailfleet_cluster.binaries import ARGOCD

if TYPE_CHECKING:
    from pathlib import Path


def engine(kind: str, script: str, objects: list[dict[str, Any]]) -> list[Any]:
    """What the engine makes of a script over each object."""
    asked = json.dumps([{"kind": kind, "script": script, "object": o} for o in objects])
    environment = {**os.environ, "ARGOCD_BINARY_NAME": "lua"}
    done = subprocess.run(
        [ARGOCD.built()], input=asked, env=environment, check=True, capture_output=True, text=True, timeout=120
    )
    answers = json.loads(done.stdout)
    assert [a["error"] for a in answers if a.get("error")] == []
    return [a["result"] for a in answers]


@pytest.mark.parametrize("script", [files.CAMPAIGN / "health.lua", files.STRICT, files.RELAY / "health.lua"], ids=str)
def test_health_is_the_same(script: Path) -> None:
    objects = list(RELAYS.values()) if "EmailRelay" in str(script) else [s.object() for s in (*SCENES, *REASONS)]
    text = script.read_text()
    assert engine("health", text, objects) == [lua.run(text, o) for o in objects]


def test_actions_are_the_same() -> None:
    text = (files.CAMPAIGN / "actions/discovery.lua").read_text()
    for scene, found in zip(SCENES, engine("discovery", text, [s.object() for s in SCENES]), strict=True):
        told = {action["name"]: not action.get("disabled", False) for action in found}
        assert told == scene.can, scene.name
        shown = lua.run(text, scene.object())
        assert {a["name"]: (a["displayName"], a["iconClass"]) for a in found} == {
            name: (a["displayName"], a["iconClass"]) for name, a in shown.items()
        }


def test_what_actions_change_is_the_same() -> None:
    for action, name in ACTIONS:
        before = files.scene(name).object()
        text = (files.CAMPAIGN / "actions" / action / "action.lua").read_text()
        (after,) = engine("action", text, [before])
        assert after == lua.run(text, before)


@pytest.mark.parametrize(("name", "status"), [("argocd-cm.yaml", "Healthy"), ("argocd-cm-strict.yaml", "Progressing")])
def test_config_maps_are_read_by_argo_cd(name: str, status: str, tmp_path: Path) -> None:
    whole = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm"}}
    config, sending = tmp_path / name, files.CAMPAIGN / "testdata/sending.yaml"
    config.write_text(yaml.safe_dump({**whole, **yaml.safe_load((files.ARGOCD / name).read_text())}))

    def settings(*words: object) -> str:
        command = [ARGOCD.built(), "admin", "settings", *words, f"--argocd-cm-path={config}"]
        environment = {**os.environ, "HOME": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "resource-overrides" in settings("validate", "--group=resource-overrides")
    assert f"STATUS: {status}" in settings("resource-overrides", "health", sending)
    assert "retry-failed" in settings("resource-overrides", "list-actions", sending)
