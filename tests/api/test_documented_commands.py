"""The documented commands that need an API server alone, run as they are written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from custom_resources import ROOT
from kube import kubectl
from mailfleet_cluster.binaries import KUBE
from reference import commands, running
from reference.running import Needs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kube import ControlPlane


def block(page: str, language: str, key: str) -> Any:
    """The first block of a page that has this key."""
    bodies = (yaml.safe_load(body) for _, body in commands.blocks((ROOT / page).read_text(encoding="utf-8"), language))
    return next(body for body in bodies if key in body)


def campaign_with_steps(api: ControlPlane) -> None:
    """README's campaign with the page's canary, in the namespace of README."""
    manifest = block("README.md", "yaml", "kind")
    manifest["spec"] |= block("docs/canary.md", "yaml", "canary")
    api.kubectl("create", "namespace", "marketing")
    api.kubectl("create", "-f", "-", stdin=json.dumps(manifest))


def argo_cd(api: ControlPlane) -> None:
    """The ConfigMap that Argo CD brings."""
    api.kubectl("create", "namespace", "argocd")
    api.kubectl("--namespace=argocd", "create", "configmap", "argocd-cm", "--from-literal=url=https://cd.example.com")


PAGES: dict[str, Callable[[ControlPlane], None]] = {"docs/canary.md": campaign_with_steps, "docs/gitops.md": argo_cd}
"""What a page presupposes."""


def test_all_of_them_in_the_order_of_their_pages(api: ControlPlane, tmp_path: Path) -> None:
    assert tuple(PAGES) == running.API_PAGES
    (tmp_path / "bin").mkdir()
    own = tmp_path / "kubeconfig"
    own.write_bytes(api.kubeconfig.read_bytes())
    kubectl(own, "config", "set-context", "--current", "--namespace=marketing")
    (tmp_path / "bin/kubectl").write_text(f'#!/bin/sh\nexec {KUBE.built()} kubectl --kubeconfig {own} "$@"\n')
    (tmp_path / "bin/kubectl").chmod(0o755)
    (tmp_path / "desk").mkdir()
    folder = running.desk(tmp_path / "desk")
    for page, prepare in PAGES.items():
        prepare(api)
        for command, _ in running.whole():
            if command.page == page and running.needs(command) is Needs.API:
                running.run(command, folder, {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"})

    def got(*words: str) -> Any:
        return json.loads(api.kubectl("get", *words, "-o", "json"))

    spec = got("emailcampaign", "autumn-news", "--namespace=marketing")["spec"]
    assert spec["canary"]["approvedStep"] == 1
    assert spec["resumeTime"] == "2026-12-01T08:14:03Z"
    data = got("configmap", "argocd-cm", "--namespace=argocd")["data"]
    wanted = yaml.safe_load((ROOT / "deploy/argocd/argocd-cm.yaml").read_text(encoding="utf-8"))["data"]
    assert data == {"url": "https://cd.example.com", **wanted}
