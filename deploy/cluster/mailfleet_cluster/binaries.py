"""The programs that are built from their Go modules, each once for each version of its sources.

The sources of each are a folder beside this package: a go.mod that names the official modules, a go.sum
that holds their hashes (so that what is built is what was reviewed), and at most one main.go. A binary is
kept in the cache under its version and the hash of that folder.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from mailfleet_cluster.commands import need, run
from mailfleet_cluster.places import CHECKOUT, cache, content_hash, locked, say

KUBERNETES = "1.35.4"
COREDNS = "1.15.0"
HELM, HELM_NEWEST = "3.22.0", "4.3.2"
KUBECONFORM_RELEASE, ARGOCD_RELEASE = "0.8.0", "3.5.7"
KIND_RELEASE = "0.33.0"


@dataclass(frozen=True, slots=True)
class Program:
    """One program to build.

    Attributes:
        name: also the name of its folder of sources.
        package: what `go build` builds in that folder.
        stamps: link-time variables, e.g. the version that the program tells.
    """

    name: str
    version: str
    package: str = "."
    stamps: tuple[str, ...] = ()

    @property
    def sources(self) -> Path:
        """The folder with go.mod."""
        return CHECKOUT / "deploy" / "cluster" / self.name

    @property
    def path(self) -> Path:
        """Where the binary is, or will be."""
        digest = content_hash([self.sources], self.package, *self.stamps)
        return cache() / "bin" / f"{self.name}-{self.version}-{digest}"

    def built(self) -> Path:
        """Build it unless that was done before.

        Returns:
            the path of the binary.

        Raises:
            MissingToolError: Go is not installed.
            CommandError: it does not build.
        """
        if self.path.exists():
            return self.path
        need("go")
        with locked("go-build"):  # one at a time: two of these builds at once thrash a small machine
            if not self.path.exists():
                self._build()
        return self.path

    def _build(self) -> None:
        say(f"building {self.name} {self.version} from its Go modules (once; minutes) ...")
        began = time.monotonic()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Modules: only what go.sum names. Static, so that it runs in any image and namespace.
        flags = ["-mod=readonly", "-buildvcs=false", "-ldflags", " ".join(["-s -w", *(f"-X {s}" for s in self.stamps)])]
        with tempfile.TemporaryDirectory(dir=self.path.parent) as folder:
            made = Path(folder) / self.name
            build = ["nice", "-n", "10", "go", "build", *flags, "-o", str(made), self.package]
            run(*build, cwd=self.sources, env={**os.environ, "CGO_ENABLED": "0"})
            made.rename(self.path)
        say(f"built {self.name} in {time.monotonic() - began:.0f} s")


_VERSION = "k8s.io/component-base/version"
KUBE = Program(
    "kube",
    KUBERNETES,
    stamps=(
        f"{_VERSION}.gitVersion=v{KUBERNETES}",
        *(f"{_VERSION}.{part}={n}" for part, n in zip(("gitMajor", "gitMinor"), KUBERNETES.split("."), strict=False)),
    ),
)
"""etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy and kubectl in one."""

DNS = Program("coredns", COREDNS)
HELM_CLIENT = Program(
    "helm", HELM, package="helm.sh/helm/v3/cmd/helm", stamps=(f"helm.sh/helm/v3/internal/version.version=v{HELM}",)
)
HELM_4 = Program(
    "helm4",
    HELM_NEWEST,
    package="helm.sh/helm/v4/cmd/helm",
    stamps=(f"helm.sh/helm/v4/internal/version.version=v{HELM_NEWEST}",),
)
"""The chart is tested with both; the cluster's own is Helm 3."""
KUBECONFORM = Program("kubeconform", KUBECONFORM_RELEASE, package="github.com/yannh/kubeconform/cmd/kubeconform")
ARGOCD = Program("argocd", ARGOCD_RELEASE, stamps=(f"github.com/argoproj/argo-cd/v3/common.version={ARGOCD_RELEASE}",))
"""Argo CD's components, its command line, and its Lua engine in one."""
KIND = Program("kind", KIND_RELEASE, package="sigs.k8s.io/kind")
PAUSE = Program("pause", "1")
"""The process that holds a pod's namespaces."""
