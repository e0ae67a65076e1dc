"""deploy/install.yaml and the kustomize base, both rendered from the chart: the same objects, without Helm's marks.

The Secret with the two URLs is the person's to make: the chart's value `existingSecret` names it.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

from mailfleet_cluster.binaries import HELM_CLIENT, KUBERNETES
from mailfleet_release.places import CHART, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALL = ROOT / "deploy/install.yaml"
BASE = ROOT / "deploy/kustomize"
NAMESPACE, RELEASE = "mailfleet-system", "mailfleet"
SECRET = f"{RELEASE}-operator"
_HEAD = """\
# Made by `make install-yaml` from charts/mailfleet: change the chart.
"""
_USE = f"""\
# Mailfleet without Helm. First a Secret with the URLs of your Postgres and Redis (each in a file without newline), here
# and in each namespace with campaigns; with ca.crt as well if they are of a private authority (docs/security.md):
#   kubectl create namespace {NAMESPACE}
#   kubectl --namespace {NAMESPACE} create secret generic {SECRET} --from-file=ledger-url --from-file=redis-url
#   kubectl --namespace marketing create secret generic mailfleet --from-file=ledger-url --from-file=redis-url
#   kubectl apply --server-side -f install.yaml
"""
_NAMESPACE = f"""\
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    app.kubernetes.io/part-of: mailfleet
    pod-security.kubernetes.io/enforce: restricted
"""
_HELMS_OWN = re.compile(r"^ +(app\.kubernetes\.io/managed-by: Helm|helm\.sh/chart: .*)\n", re.MULTILINE)


def install_yaml() -> str:
    """All of it in one file."""
    return _HEAD + _USE + "---\n" + _NAMESPACE + "---\n" + "---\n".join(manifests())


def namespace() -> str:
    """The base's namespace."""
    return _HEAD + _NAMESPACE


def definitions() -> str:
    """The base's CustomResourceDefinitions."""
    return _HEAD + "---\n".join(m for m in manifests() if _is_definition(m))


def operator() -> str:
    """The base's other objects."""
    return _HEAD + "---\n".join(m for m in manifests() if not _is_definition(m))


def manifests() -> Iterator[str]:
    """What the chart renders, each object a text; Helm's hooks are left out, and what says that Helm manages it."""
    values = (f"--set=existingSecret={SECRET}", "--set=crds.keep=false")
    command = (HELM_CLIENT.built(), "template", RELEASE, CHART, f"--namespace={NAMESPACE}", "--no-hooks", *values)
    environment = {**os.environ, "KUBECONFIG": "/dev/null"}
    done = subprocess.run(
        [*command, f"--kube-version={KUBERNETES}"], check=True, capture_output=True, text=True, env=environment
    )
    for text in re.split(r"^---\n", done.stdout, flags=re.MULTILINE):
        body = re.sub(r"^# Source: .*\n", "", text)
        if re.search(r"^kind:", body, re.MULTILINE):
            yield _HELMS_OWN.sub("", body).strip() + "\n"


def _is_definition(manifest: str) -> bool:
    return "\nkind: CustomResourceDefinition\n" in manifest
