"""A cluster by kind, where Docker or Podman works and images can be pulled."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mailfleet_cluster import engine
from mailfleet_cluster.binaries import KIND
from mailfleet_cluster.commands import run, works

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "mailfleet"
NODE_IMAGE = "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5"
"""The node image that the kind of binaries.py was released with."""


class KindCluster:
    """The kind cluster `mailfleet`; its kubeconfig is in `folder`."""

    registry = "localhost"

    def __init__(self, folder: Path, with_engine: engine.Engine) -> None:
        self.folder, self._engine = folder, with_engine
        self.kubeconfig = folder / "admin.kubeconfig"

    @classmethod
    def possible(cls, folder: Path) -> KindCluster | None:
        """This machine's, if it can have one: an engine that works and the node image within reach."""
        if (found := engine.found()) and found.pulled(NODE_IMAGE) and found.pulled(engine.PYTHON_IMAGE):
            return cls(folder, found)
        return None

    def up(self) -> None:
        """Make sure that it runs: take it if its node is ready, else make it anew."""
        if self.healthy():
            return
        self._kind("delete", "cluster", "--name", NAME)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._kind(
            *("create", "cluster", "--name", NAME, "--image", NODE_IMAGE, "--wait", "180s"),
            *("--kubeconfig", str(self.kubeconfig)),
        )

    def healthy(self) -> bool:
        """Whether its node is ready."""
        ready = ("wait", "--for=condition=Ready", "node", "--all", "--timeout=5s")
        kubectl = shutil.which("kubectl", path=f"{self.folder}/bin:{os.environ.get('PATH', '')}")
        return bool(kubectl and self.kubeconfig.exists()) and works(
            str(kubectl), "--kubeconfig", self.kubeconfig, *ready, seconds=30
        )

    def down(self) -> None:
        """Delete it, and its files."""
        self._kind("delete", "cluster", "--name", NAME)
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def base(self) -> str:
        """The base image by name: the registry decides what it is today."""
        return engine.PYTHON_IMAGE

    def present(self) -> set[str]:
        """The images that the node has."""
        listed = run(self._engine.command, "exec", f"{NAME}-control-plane", "ctr", "-n", "k8s.io", "images", "ls", "-q")
        return set(listed.split())

    def build(self, name: str, dockerfile: str, target: str) -> None:
        """Build it with the engine."""
        self._engine.build(name, dockerfile, target)

    def load(self, names: Sequence[str]) -> None:
        """Bring images to the node."""
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "images.tar"
            self._engine.save(names, archive)
            self._kind("load", "image-archive", str(archive), "--name", NAME)

    def _kind(self, *words: str) -> None:
        env = {**os.environ, "KIND_EXPERIMENTAL_PROVIDER": self._engine.command}
        run(KIND.built(), *words, env=env)
