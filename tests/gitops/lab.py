"""The real Argo CD as processes on loopback, for the cluster of KUBECONFIG: repo-server, controller and API server.

Its objects are what `kubectl apply -k` of its manifests would make, as far as the processes need them. What surprised
on the way stands beside the line that it made. All of it is taken away again, also what a run left that was killed.
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
from mailfleet_demo.installation import OccupiedError
from mailfleet_demo.kubectl import Kubectl
from services import free_port, wait_for

if TYPE_CHECKING:
    from types import TracebackType

NAMESPACE = "argocd"
PART = {"app.kubernetes.io/part-of": "argocd"}
OURS = {"mailfleet.dev/argocd-lab": "true"}
"""The label of the namespace and the definitions: an Argo CD without it is somebody's, and is left alone."""
QUICK = {"timeout.reconciliation": "10s", "timeout.reconciliation.jitter": "0s"}
MODULE = "github.com/argoproj/argo-cd/v3"
KINDS = ("applications", "applicationsets", "appprojects")


def definitions() -> Path:
    """Argo CD's own CustomResourceDefinitions, in its module."""
    command = ["go", "mod", "download", "-json", MODULE]
    done = subprocess.run(command, cwd=ARGOCD.sources, check=True, capture_output=True, text=True)
    return Path(json.loads(done.stdout)["Dir"]) / "manifests/crds"


def clean() -> None:
    """Remove what a lab made in the cluster, whether or not it lives; nothing is left to do if there was none.

    Raises:
        OccupiedError: there is an Argo CD that is not ours.
    """
    kubectl = Kubectl(NAMESPACE)
    names = [f"customresourcedefinition/{kind}.argoproj.io" for kind in KINDS]
    found = kubectl("get", "--ignore-not-found", f"namespace/{NAMESPACE}", *names, "-o", "json")
    items = json.loads(found)["items"] if found else []
    there = {f"{o['kind'].lower()}/{o['metadata']['name']}": o["metadata"].get("labels", {}) for o in items}
    if foreign := [name for name, labels in there.items() if not labels.items() >= OURS.items()]:
        raise OccupiedError(f"another Argo CD is in this cluster: {', '.join(foreign)}")
    if names[0] in there:
        # Its finalizer has nobody any more who would release it.
        for application in kubectl("get", KINDS[0], "-o", "name").split():
            kubectl("patch", application, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    if there:
        kubectl("delete", "--ignore-not-found", "--timeout=120s", *reversed(there), seconds=130)


class Lab:
    """Argo CD; use it as a context manager."""

    def __init__(self, folder: Path, redis: str) -> None:
        self.folder, self.redis = folder, redis
        self.kubectl = Kubectl(NAMESPACE)
        self.repo_port, self.api_port = free_port(), free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        for name in ("bin", "tmp", "tls", "ssh", "plugins"):
            (folder / name).mkdir(parents=True)
        (folder / "ssh/ssh_known_hosts").touch()
        # The repo-server runs this helper of Argo CD's image for every revision; no output means an unsigned commit.
        helper = folder / "bin/git-verify-wrapper.sh"
        helper.write_text("#!/bin/sh\nexit 0\n")
        helper.chmod(0o755)

    def __enter__(self) -> Self:
        clean()
        try:
            self._prepare()
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _prepare(self) -> None:
        self.kubectl.apply(_labelled({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, OURS))
        overlay = self.folder / "definitions"
        overlay.mkdir()
        base = os.path.relpath(definitions(), overlay.resolve())  # kustomize takes no absolute path
        made = {"resources": [base], "labels": [{"pairs": OURS}]}
        (overlay / "kustomization.yaml").write_text(yaml.safe_dump(made))
        # Two of them are too large for the annotation of a client-side apply.
        self.kubectl("apply", "--server-side", "-k", str(overlay))
        wait_for("its kinds are known", self._knows_its_kinds, seconds=60)
        ours = yaml.safe_load((files.ARGOCD / "argocd-cm.yaml").read_text())["data"]
        self._put("ConfigMap", "argocd-cm", data={**ours, **QUICK})
        self._put("ConfigMap", "argocd-rbac-cm", data={})
        self._put("Secret", "argocd-secret", stringData={"server.secretkey": "lab"})

    def _knows_its_kinds(self) -> bool:
        """By discovery, which follows a little after Established; this also empties what kubectl remembers of it."""
        known = self.kubectl("api-resources", "--api-group=argoproj.io", "-o", "name").split()
        return set(known) == {f"{kind}.argoproj.io" for kind in KINDS}

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
            self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def _stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        clean()

    def _put(self, kind: str, name: str, **content: Any) -> None:
        manifest = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **content}
        self.kubectl.apply(_labelled(manifest, PART))

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


def _labelled(manifest: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    return {**manifest, "metadata": {**manifest["metadata"], "labels": labels}}
