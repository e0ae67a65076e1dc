"""Kubernetes for the tests: a control plane alone for the API tests, a whole cluster for the end-to-end tests.

Alone: etcd, kube-apiserver and kube-controller-manager of the official release run on free ports of loopback,
with everything they write in a folder of the test. No root, seconds; no scheduler and no kubelet: pods stay Pending.
Whole: what `make cluster images` gives.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from mailfleet_cluster import control_plane
from mailfleet_cluster.binaries import KUBE
from mailfleet_cluster.places import CHECKOUT, state
from services import PATIENCE, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType


def kubectl(
    kubeconfig: Path,
    *args: str,
    stdin: str | None = None,
    check: bool = True,
    seconds: float = 60,
    program: Path | None = None,
) -> str:
    """Run kubectl.

    Returns:
        what it wrote to stdout; with `check=False` what it wrote to stdout and stderr.

    Raises:
        KubectlError: it ended with a failure.
    """
    done = subprocess.run(
        [*([program] if program else [KUBE.built(), "kubectl"]), "--kubeconfig", kubeconfig, *args],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds * PATIENCE,
    )
    if check and done.returncode:
        raise KubectlError(f"kubectl {' '.join(args)} (exit {done.returncode}): {done.stderr.strip()}")
    return done.stdout if check else done.stdout + done.stderr


class KubectlError(RuntimeError):
    """kubectl ended with a failure; the message holds what it said."""


class ControlPlane:
    """A private control plane; use it as a context manager.

    Attributes:
        kubeconfig: path of the administrator's kubeconfig; it holds all it needs.
        url: of the API server.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        ports = (free_port(), free_port(), free_port())
        self._files = control_plane.ControlPlane(control_plane.Plan(folder, "127.0.0.1", ports, loopback=True))
        self.kubeconfig = self._files.kubeconfig
        self.url = self._files.api.url

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl against it; see `kube.kubectl`."""
        return kubectl(self.kubeconfig, *args, stdin=stdin, check=check)

    def start(self) -> None:
        """Start it and wait until it is ready: the API answers and new namespaces get their service account.

        Raises:
            TimeoutError: it does not come up; the logs are in `folder`.
        """
        self._run("etcd", self._files.etcd())
        self._run("apiserver", self._files.apiserver())
        wait_for(f"the API server is ready (logs: {self.folder})", self._ready, seconds=60)
        self._run("controller-manager", self._files.controller_manager())
        wait_for(f"the controllers work (logs: {self.folder})", self._files.api.controllers_ready, seconds=60)

    def _ready(self) -> bool:
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.returncode}; its log is {self.folder / name}.log")
        return self._files.api.ready()

    def _run(self, name: str, arguments: list[str]) -> None:
        # --pdeathsig: it does not outlive the tests, even if those are killed.
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", KUBE.built(), *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "GOMAXPROCS": "2"},
            )

    def end(self, name: str) -> None:
        """Kill one of its processes: without `controller-manager` Jobs get no pods."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End it at once: the API server takes a minute to stop politely, and nothing of it is kept."""
        for process in self._processes.values():
            process.send_signal(signal.SIGKILL)
        for process in self._processes.values():
            process.wait()
        self._processes.clear()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster of `make cluster`, with the images of `make images`.

    Attributes:
        kubeconfig: path of the administrator's kubeconfig.
        tools: folder with kubectl and helm.
        images: full names by target: operator, sender, postgres, redis, sink.
        values: values that name these images, for the charts `mailfleet` and `demo`.
    """

    kubeconfig: Path
    tools: Path
    images: Mapping[str, str]
    values: Mapping[str, Path]

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True, seconds: float = 60) -> str:
        """Run kubectl against it; see `kube.kubectl`."""
        return kubectl(
            self.kubeconfig, *args, stdin=stdin, check=check, seconds=seconds, program=self.tools / "kubectl"
        )


def cluster_tool(verb: str, **environment: str) -> str:
    """Run a verb of the tool behind `make cluster`.

    Returns:
        what it wrote to stdout.

    Raises:
        RuntimeError: it ended with a failure.
    """
    done = subprocess.run(
        [sys.executable, "-B", "-m", "mailfleet_cluster", verb],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "deploy" / "cluster"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"mailfleet_cluster {verb}: {done.stderr}")
    return done.stdout


def running_cluster() -> Cluster:
    """Make sure that the cluster runs and has the images of this very checkout."""
    lines = cluster_tool("images").splitlines()
    images = {name.removesuffix("_IMAGE").lower(): image for name, _, image in (line.partition("=") for line in lines)}
    folder = state()
    values = {"mailfleet": folder / "images.json", "demo": folder / "demo-images.json"}
    return Cluster(folder / "admin.kubeconfig", folder / "bin", images, values)
