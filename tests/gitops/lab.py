"""The real Argo CD as processes on loopback, against a real API server: repo-server, controller and API server.

Its objects are what `kubectl apply -k` of its manifests would make, as far as the processes need them. What surprised
on the way stands beside the line that it made.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml

from gitops import files
from mailfleet_cluster.binaries import ARGOCD
from services import free_port, wait_for

if TYPE_CHECKING:
    from types import TracebackType

    from kube import ControlPlane

NAMESPACE = "argocd"
PART = {"app.kubernetes.io/part-of": "argocd"}
QUICK = {"timeout.reconciliation": "10s", "timeout.reconciliation.jitter": "0s"}
MODULE = "github.com/argoproj/argo-cd/v3"


def definitions() -> Path:
    """Argo CD's own CustomResourceDefinitions, in its module."""
    done = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Dir}}", MODULE], cwd=ARGOCD.sources, check=True, capture_output=True, text=True
    )
    return Path(done.stdout.strip()) / "manifests/crds"


class Lab:
    """Argo CD; use it as a context manager."""

    def __init__(self, plane: ControlPlane, folder: Path, redis: str) -> None:
        self.plane, self.folder, self.redis = plane, folder, redis
        self.repo_port, self.api_port = free_port(), free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        for name in ("bin", "tmp", "tls", "ssh", "plugins"):
            (folder / name).mkdir(parents=True)
        (folder / "ssh/ssh_known_hosts").touch()
        # The repo-server runs this helper of Argo CD's image for every revision; no output means an unsigned commit.
        helper = folder / "bin/git-verify-wrapper.sh"
        helper.write_text("#!/bin/sh\nexit 0\n")
        helper.chmod(0o755)

    def __enter__(self) -> Self:
        kubectl = self.plane.kubectl
        kubectl("create", "namespace", NAMESPACE)
        # Two of them are too large for the annotation of a client-side apply.
        kubectl("apply", "--server-side", "-k", str(definitions()))
        kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "applications.argoproj.io")
        ours = yaml.safe_load((files.ARGOCD / "argocd-cm.yaml").read_text())["data"]
        self._put("ConfigMap", "argocd-cm", data={**ours, **QUICK})
        self._put("ConfigMap", "argocd-rbac-cm", data={})
        self._put("Secret", "argocd-secret", stringData={"server.secretkey": "lab"})
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _start(self) -> None:
        address, redis = ("--address", "127.0.0.1"), ("--redis", self.redis)
        metrics = [str(free_port()) for _ in range(3)]
        # Without --client-ca-path '' --disable-tls makes it exit with its usage.
        plain = ("--disable-tls", "--client-ca-path", "")
        where = ("--metrics-address", "127.0.0.1", "--metrics-port")
        self._run("repo-server", *address, "--port", str(self.repo_port), *where, metrics[0], *redis, *plain)
        repo = ("--repo-server", f"127.0.0.1:{self.repo_port}", "--repo-server-plaintext", "--namespace", NAMESPACE)
        often = ("--app-resync", "10", "--app-resync-jitter", "0", "--self-heal-timeout-seconds", "2")
        self._run("application-controller", *redis, *repo, "--metrics-port", metrics[1], *often)
        local = (*address, "--port", str(self.api_port), *where, metrics[2], "--disable-auth", "--insecure")
        self._run("server", *redis, *repo, *local)
        wait_for(f"Argo CD answers (logs: {self.folder})", lambda: self.cli("version", check=False), seconds=90)

    def _run(self, name: str, *arguments: str) -> None:
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "KUBECONFIG": str(self.plane.kubeconfig),
            "ARGOCD_BINARY_NAME": f"argocd-{name}",
            "ARGOCD_FAKE_IN_CLUSTER": "true",  # https://kubernetes.default.svc means KUBECONFIG
            "ARGOCD_GPG_ENABLED": "false",
            "ARGOCD_TLS_DATA_PATH": str(self.folder / "tls"),
            "ARGOCD_SSH_DATA_PATH": str(self.folder / "ssh"),
            "ARGOCD_PLUGINSOCKFILEPATH": str(self.folder / "plugins"),
            "ARGOCD_SYNC_WAVE_DELAY": "1",
            "HOSTNAME": f"argocd-{name}-0",
            "TMPDIR": str(self.folder / "tmp"),
        }
        with (self.folder / f"{name}.log").open("wb") as log:
            command = ["setpriv", "--pdeathsig", "KILL", ARGOCD.built(), *arguments, "--logformat", "text"]
            self._processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def _stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def _put(self, kind: str, name: str, **content: Any) -> None:
        manifest = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": PART}, **content}
        self.plane.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=json.dumps(manifest))

    def cli(self, *words: str, check: bool = True) -> str:
        """Run `argocd`; what it wrote to stdout."""
        where = ("--server", f"127.0.0.1:{self.api_port}", "--plaintext", "--config", str(self.folder / "cli.yaml"))
        done = subprocess.run(
            [ARGOCD.built(), *where, *words],
            env={**os.environ, "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout if done.returncode == 0 else ""
