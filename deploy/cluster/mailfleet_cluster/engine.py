"""Docker or Podman: building and pulling images where there is one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_cluster.commands import run, works
from mailfleet_cluster.places import CHECKOUT, say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PYTHON_IMAGE = "python:3.13-slim"


class Engine:
    """A container engine's command, `docker` or `podman`."""

    def __init__(self, command: str) -> None:
        self.command = command

    def pulled(self, image: str) -> bool:
        """Whether an image is here, pulled now if need be."""
        if works(self.command, "image", "inspect", image):
            return True
        say(f"{self.command} pull {image} ...")
        return works(self.command, "pull", "--quiet", image, seconds=600)

    def build(self, name: str, dockerfile: str, target: str) -> None:
        """Build one target of a Dockerfile of the checkout."""
        base = ("--build-arg", f"PYTHON_IMAGE={PYTHON_IMAGE}")
        run(self.command, "build", *base, "--file", dockerfile, "--target", target, "--tag", name, ".", cwd=CHECKOUT)

    def save(self, names: Sequence[str], archive: Path) -> None:
        """Write images to an archive."""
        several = ("--multi-image-archive",) if self.command == "podman" else ()
        run(self.command, "save", *several, "--output", archive, *names)

    def push(self, name: str) -> None:
        """Push an image to the registry that its name tells."""
        run(self.command, "push", name)


def found() -> Engine | None:
    """The engine that works here for this user: Docker, else Podman, else None."""
    for command in ("docker", "podman"):
        if works(command, "info"):
            return Engine(command)
    return None
