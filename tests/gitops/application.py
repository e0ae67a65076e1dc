"""A folder in Git and the Argo CD Application that applies it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from gitops.lab import NAMESPACE
from mailfleet_demo.kubectl import Kubectl
from services import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from gitops.lab import Lab

ANNOTATION = "argocd.argoproj.io"


@dataclass
class Application:
    """One application.

    Attributes:
        repo: an empty folder, which becomes the repository.
        destination: the namespace of its objects.
        revision: of the newest commit.
    """

    lab: Lab
    repo: Path
    name: str
    destination: str
    revision: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.kubectl = Kubectl(NAMESPACE)
        self._git("init", "-qb", "main")

    # --- Git -------------------------------------------------------------------------------------------
    def _git(self, *words: str) -> str:
        person = ("-c", "user.name=lab", "-c", "user.email=lab@example.com")
        command = ["git", "-C", str(self.repo), *person, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, **manifests: dict[str, Any] | None) -> None:
        """Write (or with None remove) files of the application, commit, and have Argo CD look if it is there."""
        folder = self.repo / self.name
        folder.mkdir(exist_ok=True)
        for name, manifest in manifests.items():
            file = folder / f"{name}.yaml"
            if manifest is None:
                file.unlink()
            else:
                file.write_text(yaml.safe_dump(manifest))
        self._git("add", "-A")
        self._git("commit", "-qm", "change")
        self.revision = self._git("rev-parse", "HEAD")
        if self.status is not None:
            refresh = f"{ANNOTATION}/refresh=normal"
            self.kubectl("annotate", "application", self.name, refresh, "--overwrite")

    # --- Argo CD ---------------------------------------------------------------------------------------
    def create(self) -> None:
        """Make the application; it syncs by itself."""
        policy = {"automated": {"prune": True, "selfHeal": True}, "retry": {"limit": 5, "refresh": True}}
        manifest = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Application",
            "metadata": {"name": self.name, "finalizers": [f"resources-finalizer.{ANNOTATION}/foreground"]},
            "spec": {
                "project": "default",
                "source": {"repoURL": f"file://{self.repo}", "path": self.name, "targetRevision": "main"},
                "destination": {"server": "https://kubernetes.default.svc", "namespace": self.destination},
                "syncPolicy": policy,
            },
        }
        self.kubectl.apply(manifest)

    def delete(self) -> None:
        """Delete it with all that it made, if it is there."""
        self.kubectl("delete", "application", self.name, "--ignore-not-found", "--timeout=240s", seconds=250)

    @property
    def status(self) -> dict[str, Any] | None:
        """What Argo CD says of it; None if it is not there."""
        found = self.kubectl("get", "application", self.name, "--ignore-not-found", "-o", "json")
        return json.loads(found).get("status", {}) if found else None

    def until(self, sync: str, health: str, *, seconds: float = 60) -> dict[str, Any]:
        """Wait until the newest commit was looked at and is in this state; the status then."""

        def found() -> dict[str, Any] | None:
            status = self.status or {}
            seen = status.get("sync", {})
            now = (seen.get("revision"), seen.get("status"), status.get("health", {}).get("status"))
            return status if now == (self.revision, sync, health) else None

        return self._wait(f"{self.name} is {sync}, {health}", found, seconds)

    def until_refused(self, words: str, *, seconds: float = 60) -> dict[str, Any]:
        """Wait until the newest commit is OutOfSync with these words in what is said of the operation; the status."""

        def found() -> dict[str, Any] | None:
            status = self.status or {}
            told = status.get("operationState", {})
            newest = status.get("sync", {}).get("revision") == self.revision
            refused = newest and status["sync"]["status"] == "OutOfSync" and words in json.dumps(told)
            return status if refused else None

        return self._wait(f"{self.name} is OutOfSync and says {words!r}", found, seconds)

    def _wait(self, what: str, found: Any, seconds: float) -> dict[str, Any]:
        try:
            status: dict[str, Any] = wait_for(what, found, seconds=seconds, interval=0.5)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {json.dumps(self.status)[:3000]}") from None
        return status

    def act(self, action: str, campaign: str) -> None:
        """Run one of our actions on a campaign."""
        which = ("--kind", "EmailCampaign", "--resource-name", campaign)
        self.lab.cli("app", "actions", "run", self.name, action, *which)
