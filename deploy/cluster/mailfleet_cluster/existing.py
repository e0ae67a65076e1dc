"""A cluster that the person names: CLUSTER=existing, with KUBECONFIG, and IMAGE_REGISTRY for the images."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mailfleet_cluster import engine
from mailfleet_cluster.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence


class ExistingCluster:
    """Somebody's cluster: used, never made and never removed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kubeconfig = folder / "admin.kubeconfig"

    @property
    def registry(self) -> str:
        """Where its nodes pull from and this user may push to.

        Raises:
            UnsupportedError: IMAGE_REGISTRY is not set.
        """
        if not (named := os.environ.get("IMAGE_REGISTRY")):
            raise UnsupportedError("CLUSTER=existing needs IMAGE_REGISTRY: where to push the images, as host/path")
        return named.rstrip("/")

    def up(self) -> None:
        """Note which it is.

        Raises:
            UnsupportedError: KUBECONFIG names no file.
        """
        named = os.environ.get("KUBECONFIG", "")
        if not Path(named).is_file():
            raise UnsupportedError("CLUSTER=existing needs KUBECONFIG: the path of one kubeconfig")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.kubeconfig.unlink(missing_ok=True)
        self.kubeconfig.symlink_to(Path(named).resolve())

    def down(self) -> None:
        """Forget it; the cluster stays as it is."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def base(self) -> str:
        """The base image by name."""
        return engine.PYTHON_IMAGE

    def present(self) -> set[str]:
        """Nothing is known of its registry: building and pushing again changes nothing."""
        return set()

    def build(self, name: str, dockerfile: str, target: str) -> None:
        """Build it with Docker or Podman."""
        _engine().build(name, dockerfile, target)

    def load(self, names: Sequence[str]) -> None:
        """Push them."""
        for name in names:
            _engine().push(name)


def _engine() -> engine.Engine:
    if not (found := engine.found()):
        raise UnsupportedError("CLUSTER=existing needs Docker or Podman to build and push images")
    return found
