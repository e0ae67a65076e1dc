"""deploy/install.yaml and the kustomize base: the chart's objects, and good for a real API server."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from custom_resources import CHARTS, ROOT
from mailfleet_cluster.binaries import HELM_CLIENT, KUBE, KUBERNETES
from mailfleet_release import install_files
from mailfleet_release.__main__ import MADE

if TYPE_CHECKING:
    from kube import ControlPlane

EXAMPLE = ROOT / "examples/kustomize"
HELMS_OWN = {"app.kubernetes.io/managed-by", "helm.sh/chart"}

Objects = dict[tuple[str, str], dict[str, Any]]


def objects(text: str) -> Objects:
    """The manifests by kind and name."""
    return {(m["kind"], m["metadata"]["name"]): m for m in yaml.safe_load_all(text) if m}


def kustomized(folder: object) -> Objects:
    done = subprocess.run(
        [KUBE.built(), "kubectl", "kustomize", str(folder)], check=True, capture_output=True, text=True
    )
    return objects(done.stdout)


@pytest.mark.parametrize("name", ["install.yaml", "namespace.yaml", "definitions.yaml", "operator.yaml"])
def test_file_is_what_the_chart_renders_now(name: str) -> None:
    """Mend it with: make install-yaml"""
    path, make = MADE[name]
    assert path.read_text() == make()


def test_objects_are_those_of_the_chart() -> None:
    """Seen apart from how the files are made: all but hooks and Helm's own marks, and the namespace beside them."""
    command = [HELM_CLIENT.built(), "template", "mailfleet", CHARTS["mailfleet"], "--namespace=mailfleet-system"]
    values = ("--set=existingSecret=mailfleet-operator", "--set=crds.keep=false", f"--kube-version={KUBERNETES}")
    environment = {**os.environ, "KUBECONFIG": "/dev/null"}
    done = subprocess.run([*command, *values], check=True, capture_output=True, text=True, env=environment)
    wanted = {key: m for key, m in objects(done.stdout).items() if "helm.sh/hook" not in str(m["metadata"])}
    for manifest in wanted.values():
        for labelled in (manifest, manifest.get("spec", {}).get("template", {})):
            for label in HELMS_OWN:
                labelled.get("metadata", {}).get("labels", {}).pop(label, None)
    found = objects(install_files.INSTALL.read_text())
    del found["Namespace", "mailfleet-system"]
    assert found == wanted


def test_base_gives_the_same_objects() -> None:
    assert kustomized(install_files.BASE) == objects(install_files.INSTALL.read_text())


def test_overlay_gives_the_operator_and_its_senders_other_images() -> None:
    pod = kustomized(EXAMPLE)["Deployment", "mailfleet-operator"]["spec"]["template"]["spec"]
    (migrate,), (operator,) = pod["initContainers"], pod["containers"]
    told = {env["name"]: env.get("value") for env in operator["env"]}
    assert operator["image"] == "registry.example.com/mailfleet/operator:0.1.0"
    assert told["MAILFLEET_SENDER_IMAGE"] == migrate["image"] == "registry.example.com/mailfleet/sender:0.1.0"


def test_api_server_takes_the_file_as_its_head_says(control_plane: ControlPlane) -> None:
    apply = ("apply", "--server-side", "--force-conflicts", "-f", str(install_files.INSTALL))
    told = control_plane.kubectl(*apply)
    assert told.count("serverside-applied") == len(objects(install_files.INSTALL.read_text()))
    assert control_plane.kubectl(*apply).count("serverside-applied") == told.count("serverside-applied")
    # Restricted Pod Security is enforced in its namespace: the operator's pod is made all the same.
    wait = ("wait", "replicaset", "--all", "--for=jsonpath={.status.replicas}=1", "--timeout=60s")
    control_plane.kubectl(*wait, "--namespace=mailfleet-system")
    control_plane.kubectl("delete", "namespace", "mailfleet-system", "--wait=false")
