"""Mailfleet with the services of the demonstration, in one namespace: put there, and taken away again.

The end-to-end tests use it as well. There is one operator for a cluster, so both use the same names, and whatever
either of them left is removed first: the ledger would otherwise know a campaign as Complete, and rightly send nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from mailfleet_cluster import places

from .errors import CommandError, DemoError
from .kubectl import Kubectl, helm, run

ROOT = Path(__file__).resolve().parents[3]
RELEASES = {
    "demo": (ROOT / "deploy/demo/chart", "demo-images.json"),
    "mailfleet": (ROOT / "charts/mailfleet", "images.json"),
}
"""The releases in the order of their installation: chart, and the file in which `make images` names the images."""
VALUES = ROOT / "deploy/demo/values.yaml"
NAMESPACE, OPERATOR = "mailfleet-demo", "mailfleet-operator"
OURS = "mailfleet.dev/demo"
"""The label of every namespace that the demonstration or a test makes."""
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}

kubectl = Kubectl(NAMESPACE)


class OccupiedError(DemoError, RuntimeError):
    """Another Mailfleet works in this cluster."""


def use_cluster() -> None:
    """Use the cluster, and the programs, of `make cluster`.

    Raises:
        DemoError: there is none, or it has no images yet.
    """
    folder = places.state()
    if not (folder / RELEASES["demo"][1]).exists():
        raise DemoError(f"there is no cluster with images in {folder}: run `make cluster images`, or `make demo`")
    os.environ["KUBECONFIG"] = str(folder / "admin.kubeconfig")
    os.environ["PATH"] = f"{folder / 'bin'}:{os.environ['PATH']}"


def namespace(name: str) -> None:
    """Make a namespace in which only restricted pods may run."""
    labels = {**RESTRICTED, OURS: "true"}
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


def install() -> None:
    """The namespace, Postgres, Redis and the sink, then Mailfleet; all of it ready."""
    namespace(NAMESPACE)
    for release in RELEASES:
        upgrade(release)


def upgrade(release: str, *more: str) -> None:
    """Install or upgrade one release, and wait until it is ready; `more` are further arguments of Helm."""
    chart, images = RELEASES[release]
    values = ["--values", str(places.state() / images)]
    if release == "mailfleet":
        values += ["--values", str(VALUES)]
    command = ("upgrade", "--install", release, str(chart), "--namespace", NAMESPACE, *values, *more)
    helm(*command, "--wait", "--timeout", "180s")


def clean() -> None:
    """Remove what an earlier demonstration or test left, and wait until it is gone.

    Raises:
        OccupiedError: there is a Mailfleet that is not ours: it and its campaigns are left alone.
        CommandError: something would not go.
    """
    for release in json.loads(helm("list", "--all-namespaces", "--output", "json")):
        if release["chart"].startswith("mailfleet-") and release["namespace"] != NAMESPACE:
            raise OccupiedError(f"release {release['name']} of namespace {release['namespace']} is in this cluster")
    found = kubectl("get", "namespaces", "--selector", OURS, "-o", "name").split()
    # Campaigns and Jobs first: a namespace with running Jobs waits for somebody to take their pods' finalizers away.
    for name in found:
        inside = Kubectl(name.removeprefix("namespace/"))
        with contextlib.suppress(CommandError):  # the definitions may not be there
            inside("delete", "emailcampaigns,emailrelays", "--all", "--wait=false")
        inside("delete", "jobs", "--all", "--cascade=foreground", "--wait=false")
    for name in found:
        Kubectl(name.removeprefix("namespace/"))("wait", "jobs", "--all", "--for=delete", "--timeout=120s", seconds=130)
    if f"namespace/{NAMESPACE}" in found:
        for release in reversed(RELEASES):
            helm("uninstall", release, "--namespace", NAMESPACE, "--ignore-not-found", "--wait", "--timeout", "90s")
    if found:
        run(*kubectl.command("delete", *found, "--timeout=180s"), seconds=190)
