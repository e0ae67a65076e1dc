"""The Argo CD of the tests leaves nothing behind, killed or not, and takes nothing away that is somebody else's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gitops import lab
from mailfleet_cluster.binaries import KUBE
from mailfleet_demo.installation import OccupiedError
from services import wait_for

if TYPE_CHECKING:
    from kube import ControlPlane
    from services import RedisServer

CRASHING = """
import sys
from pathlib import Path
from gitops.application import Application
from gitops.lab import Lab
folder, redis = Path(sys.argv[1]), sys.argv[2]
with Lab(folder / "argocd", redis) as lab:
    repo = folder / "repo"
    repo.mkdir()
    app = Application(lab, repo, "left", "default")
    app.commit(thing={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "thing"}})
    app.create()
    app.until("Synced", "Healthy")
    print(*(process.pid for process in lab.processes), flush=True)
    sys.stdin.read()
"""


def left(control_plane: ControlPlane) -> str:
    return control_plane.kubectl("get", "crd,namespaces", "-o", "name", "--selector", "mailfleet.dev/argocd-lab")


def test_a_killed_run_leaves_no_process_and_the_next_removes_its_objects(
    control_plane: ControlPlane, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    monkeypatch.setenv("KUBECTL", f"{KUBE.built()} kubectl")
    monkeypatch.setenv("PYTHONPATH", ":".join(p for p in sys.path if p))
    redis = redis_server.url.partition("//")[2].partition("/")[0]
    command = [sys.executable, "-c", CRASHING, str(tmp_path), redis]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as crashing:
        assert crashing.stdout
        pids = crashing.stdout.readline().split()
        crashing.kill()
    assert len(pids) == 3
    wait_for("they ended with it", lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert control_plane.kubectl("-n", "argocd", "get", "applications", "-o", "name").split()

    lab.clean()
    assert left(control_plane) == ""
    lab.clean()

    control_plane.kubectl("create", "namespace", "argocd")
    with pytest.raises(OccupiedError, match="namespace/argocd"):
        lab.clean()
    control_plane.kubectl("delete", "namespace", "argocd")
