"""The files of deploy/argocd that are made: test data and expectations in the layout of Argo CD's own repository, and
the entries of argocd-cm. `python3 -m gitops.files` writes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from custom_resources import ROOT
from gitops import lua
from gitops.reasons import REASONS
from gitops.relays import RELAYS
from gitops.scenes import ACTIONS, SCENES, Scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ARGOCD = ROOT / "deploy/argocd"
CUSTOMIZATIONS = ARGOCD / "resource_customizations/mailfleet.dev"
CAMPAIGN, RELAY = CUSTOMIZATIONS / "EmailCampaign", CUSTOMIZATIONS / "EmailRelay"
STRICT = ARGOCD / "strict/mailfleet.dev/EmailCampaign/health.lua"
MADE_FROM = {"argocd-cm.yaml": CAMPAIGN / "health.lua", "argocd-cm-strict.yaml": STRICT}
"""The ConfigMaps, and the health of campaigns in each."""
_STRICT_HEAD = """\
-- The strict variant: an application is Healthy only when its campaigns are Complete, so `argocd app wait --health`
-- waits for the last mail, and a campaign holds up what comes in later sync waves. Give it an application of its own.
-- Made from ../../../resource_customizations/mailfleet.dev/EmailCampaign/health.lua by `make argocd`: change that.
"""
_UNDER_WAY = 'local under_way = "Healthy"\n'
"""What the health of a campaign that sends begins with; its comment stands before."""
_HEAD = "# Made by `make argocd` (tests/gitops): change that.\n"
_CM_HEAD = (
    _HEAD
    + "# To be merged into your argocd-cm: kubectl --namespace argocd patch configmap argocd-cm --patch-file FILE\n"
)


def scene(name: str) -> Scene:
    """The scene of that name."""
    return next(s for s in SCENES if s.name == name)


def made() -> Iterator[tuple[Path, str]]:
    """Each file with what it should hold."""
    for folder, objects in ((CAMPAIGN, {s.name: s.object() for s in (*SCENES, *REASONS)}), (RELAY, dict(RELAYS))):
        health = (folder / "health.lua").read_text()
        tests = []
        for name, manifest in objects.items():
            yield folder / f"testdata/{name}.yaml", _yaml(manifest)
            tests.append({"healthStatus": lua.run(health, manifest), "inputPath": f"testdata/{name}.yaml"})
        yield folder / "health_test.yaml", _yaml({"tests": tests})
    yield from _actions(CAMPAIGN / "actions")
    strict = strict_health()
    yield STRICT, strict
    usual = (CAMPAIGN / "health.lua").read_text()
    for name, health_of_campaigns in MADE_FROM.items():
        yield ARGOCD / name, config_map(strict if health_of_campaigns == STRICT else usual)


def strict_health() -> str:
    """The health of campaigns in the strict variant: one that is under way is Progressing."""
    _, under_way, rest = (CAMPAIGN / "health.lua").read_text().partition(_UNDER_WAY)
    return _STRICT_HEAD + under_way.replace("Healthy", "Progressing") + rest


def _actions(folder: Path) -> Iterator[tuple[Path, str]]:
    discovery = (folder / "discovery.lua").read_text()
    found, done = [], []
    for one in SCENES:
        yield folder / f"testdata/{one.name}.yaml", _yaml(one.object())
        actions = lua.run(discovery, one.object())
        listed = [{"name": name, **actions[name]} for name in sorted(actions)]
        found.append({"inputPath": f"testdata/{one.name}.yaml", "result": listed})
    for action, name in ACTIONS:
        after = lua.run((folder / action / "action.lua").read_text(), scene(name).object())
        output = f"testdata/{name}-{action}.yaml"
        yield folder / output, _yaml(after)
        done.append({"action": action, "inputPath": f"testdata/{name}.yaml", "expectedOutputPath": output})
    yield folder / "action_test.yaml", _yaml({"discoveryTests": found, "actionTests": done})


def config_map(health_of_campaigns: str) -> str:
    """The entries of argocd-cm, as a patch of it."""
    data = {}
    for folder in (CAMPAIGN, RELAY):
        health = health_of_campaigns if folder is CAMPAIGN else (folder / "health.lua").read_text()
        data[f"resource.customizations.health.mailfleet.dev_{folder.name}"] = health
    actions = CAMPAIGN / "actions"
    definitions = [
        {"name": script.parent.name, "action.lua": script.read_text()}
        for script in sorted(actions.glob("*/action.lua"))
    ]
    told = {"discovery.lua": (actions / "discovery.lua").read_text(), "definitions": definitions}
    data["resource.customizations.actions.mailfleet.dev_EmailCampaign"] = _dump(told)
    return _CM_HEAD + _dump({"data": data})


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, so that Lua stays readable."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _dump(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def _yaml(value: Any) -> str:
    return _HEAD + _dump(value)


def write() -> None:
    """Write them all."""
    for path, text in made():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
