"""The local cluster's life: found healthy, half dead, half made, and removed without a trace.

On a second cluster beside the one that the other tests use: in a folder, a network and control groups of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kube import KubectlError, cluster_tool, kubectl
from mailfleet_cluster import audit, pause_image
from mailfleet_cluster.local import LocalCluster
from mailfleet_cluster.network import Network
from mailfleet_cluster.places import CHECKOUT, usual_state
from mailfleet_cluster.processes import Processes, kill_all
from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("containerd"), reason="the local cluster needs root and Debian's containerd"
)

STATE = Path("/var/lib/mailfleet-cluster-life")
HERE = {"MAILFLEET_STATE": str(STATE), "CLUSTER": "local"}
POD = f"""
apiVersion: v1
kind: Pod
metadata: {{name: sleeper, namespace: default}}
spec:
  containers:
    - name: main
      image: {pause_image.NAME}
      imagePullPolicy: Never
      volumeMounts: [{{name: memory, mountPath: /memory}}]
  volumes:
    - {{name: memory, emptyDir: {{medium: Memory}}}}
"""


@pytest.fixture
def second() -> Iterator[LocalCluster]:
    """A second local cluster, not started; removed after the test."""
    cluster = LocalCluster(STATE, Network.of(STATE, usual_state()))
    cluster.down()
    yield cluster
    cluster.down()


def start(cluster: LocalCluster) -> None:
    cluster_tool("up", **HERE)
    assert cluster.healthy()


def run_a_pod(cluster: LocalCluster) -> None:
    """A pod with a network namespace, a volume and control groups: all that a pod can leave behind."""
    kubectl(cluster.kubeconfig, "create", "-f", "-", stdin=POD)
    kubectl(cluster.kubeconfig, "wait", "pod/sleeper", "--for=condition=Ready", "--timeout=200s")


def traces() -> dict[str, list[str]]:
    """What a cluster could leave on this machine, by kind; other clusters' own things are not in it."""
    number = Network.of(STATE, usual_state()).number
    ours = re.compile(rf"{STATE}\b|mailfleet{number}\b|198\.18\.{4 * number}\.|198\.18\.{4 * number + 1}\.")
    others = [p for p in Path("/proc").glob("[0-9]*") if int(p.name) != os.getpid()]
    made = ("/run/containerd", "/run/netns", "/var/lib/cni", "/var/lib/kubelet", "/var/log/pods", "/var/log/containers")
    found = {
        "processes": {_text(p / file).replace("\0", " ") for p in others for file in ("cmdline", "cgroup")},
        "mounts": {line for p in others for line in _text(p / "mounts").splitlines()},
        "links": set(_output("ip", "-o", "link").splitlines()),
        "routes": set(_output("ip", "route", "show", "table", "all").splitlines()),
        "rules": set(_output("iptables-save").splitlines()),
        "control groups": {str(p) for p in Path("/sys/fs/cgroup").glob(f"**/mailfleet{number}")},
        "files": {str(p) for p in STATE.parent.iterdir()} | {str(p) for f in made for p in Path(f).glob("*")},
    }
    return {kind: sorted(t for t in texts if ours.search(t)) for kind, texts in found.items()}


def assert_no_traces() -> None:
    """Nothing is left: at once, but for processes that are dead and not yet buried by their new parent, init."""
    left = traces()
    with contextlib.suppress(TimeoutError):
        wait_for("their burial", lambda: not any(traces().values()), seconds=5)
    assert {**left, "processes": traces()["processes"]} == {kind: [] for kind in left}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended meanwhile
        return ""


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_healthy_cluster_is_taken_as_it_is_within_seconds(second: LocalCluster) -> None:
    start(second)
    before = Processes(STATE).living()
    began = time.monotonic()
    cluster_tool("up", **HERE)
    assert time.monotonic() - began < 5
    assert Processes(STATE).living() == before


def test_a_cluster_that_writes_down_other_requests_is_started_anew(second: LocalCluster) -> None:
    start(second)
    before = Processes(STATE).living()
    (STATE / audit.FOLDER / "policy.json").write_text("{}")
    assert not second.healthy()
    start(second)
    assert Processes(STATE).living().keys() == before.keys()
    assert not set(Processes(STATE).living().values()) & set(before.values())


def test_what_service_accounts_ask_for_is_written_down(second: LocalCluster, tmp_path: Path) -> None:
    start(second)
    token = kubectl(second.kubeconfig, "create", "token", "default").strip()
    # With the administrator's certificate kubectl would be the administrator whatever the token says.
    config = json.loads(second.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    with pytest.raises(KubectlError, match="forbidden"):
        kubectl(tmp_path / "kubeconfig", "get", "secrets")
    written = [json.loads(line) for file in audit.files(STATE) for line in file.read_text().splitlines()]
    (entry,) = [e for e in written if "objectRef" in e]  # kubectl also asks what kinds there are
    assert (entry["verb"], entry["objectRef"]["resource"], entry["responseStatus"]["code"]) == ("list", "secrets", 403)


@pytest.mark.parametrize("half", [0, 1])
def test_a_half_dead_cluster_is_cleared_away_and_started_anew(second: LocalCluster, half: int) -> None:
    start(second)
    run_a_pod(second)
    victims = sorted(Processes(STATE).living().items())[half::2]
    for _, pid in victims:
        os.kill(pid, signal.SIGKILL)
    assert not second.healthy()
    start(second)
    run_a_pod(second)
    assert len(Processes(STATE).living()) == 8


def test_down_leaves_nothing(second: LocalCluster) -> None:
    start(second)
    run_a_pod(second)
    assert all(traces()[kind] for kind in ("processes", "mounts", "links", "routes", "control groups", "files"))
    cluster_tool("down", **HERE)
    assert_no_traces()


@pytest.mark.parametrize("seconds", [0.3, 0.6, 1.0, 1.5, 2.5, 4.0])
def test_down_leaves_nothing_of_a_start_that_was_killed(second: LocalCluster, seconds: float) -> None:
    command = [sys.executable, "-B", "-m", "mailfleet_cluster", "up"]
    environment = {**os.environ, **HERE, "PYTHONPATH": str(CHECKOUT / "deploy" / "cluster")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as starting:
        try:
            starting.wait(seconds)
        except subprocess.TimeoutExpired:
            starting.kill()
    cluster_tool("down", **HERE)
    assert_no_traces()


def test_down_leaves_nothing_when_all_processes_and_the_notes_about_them_are_gone(second: LocalCluster) -> None:
    start(second)
    run_a_pod(second)
    living = Processes(STATE).living
    kill_all("the cluster's own processes", lambda: living().values())
    shutil.rmtree(STATE / "run")
    cluster_tool("down", **HERE)
    assert_no_traces()


def test_a_process_of_somebody_else_with_a_noted_id_is_left_alone(second: LocalCluster) -> None:
    with subprocess.Popen(["sleep", "300"]) as innocent:
        (STATE / "run").mkdir(parents=True)
        (STATE / "run" / "etcd").write_text(f"{innocent.pid} 1 another-boot")
        cluster_tool("down", **HERE)
        assert innocent.poll() is None
        innocent.kill()
    assert not STATE.exists()
