"""The images of Mailfleet and of its demo: built once for each content, then given to the cluster."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mailfleet_cluster.places import content_hash

if TYPE_CHECKING:
    from collections.abc import Sequence

_CODE = ("operator", "sender", "pyproject.toml", "requirements/dev.txt")


@dataclass(frozen=True, slots=True)
class Image:
    """One image to build.

    Attributes:
        target: of the Dockerfile.
        repository: its name without registry and tag.
        dockerfile: in the checkout.
        content: the files and folders of the checkout that it is made of.
    """

    target: str
    repository: str
    dockerfile: str
    content: tuple[str, ...]

    def tag(self, base: str) -> str:
        """A tag that changes with the image's content and with the base that it stands on."""
        return content_hash(map(Path, (self.dockerfile, *self.content)), base, self.target)


IMAGES = (
    Image("operator", "mailfleet/operator", "deploy/Dockerfile", (*_CODE, "requirements/operator.txt")),
    Image("sender", "mailfleet/sender", "deploy/Dockerfile", (*_CODE, "requirements/sender.txt")),
    Image("postgres", "mailfleet/demo-postgres", "deploy/demo/Dockerfile", ("deploy/demo/postgres.sh",)),
    Image("redis", "mailfleet/demo-redis", "deploy/demo/Dockerfile", ()),
    Image("sink", "mailfleet/demo-sink", "deploy/demo/Dockerfile", ("deploy/sink/mailfleet_sink",)),
)


class Builder(Protocol):
    """Something that builds images and brings them to the cluster."""

    @property
    def registry(self) -> str:
        """What stands before an image's repository."""

    def base(self) -> str:
        """The name of the base image, made if need be."""

    def present(self) -> set[str]:
        """The names of the images that the cluster has already."""

    def build(self, name: str, dockerfile: str, target: str) -> None:
        """Build it; quick if nothing changed."""

    def load(self, names: Sequence[str]) -> None:
        """Bring built images to the cluster."""


def bring(builder: Builder) -> dict[str, str]:
    """Build what changed and bring to the cluster what it does not have.

    Returns:
        the images' full names, by target.
    """
    base = builder.base()
    names = {i.target: f"{builder.registry}/{i.repository}:{i.tag(base)}" for i in IMAGES}
    present = builder.present()
    missing = [i for i in IMAGES if names[i.target] not in present]
    for image in missing:
        builder.build(names[image.target], image.dockerfile, image.target)
    if missing:
        builder.load([names[i.target] for i in missing])
    return names


def write(names: dict[str, str], folder: Path) -> None:
    """Write the names where others take them.

    images.env for shells; images.json as values of the chart mailfleet, demo-images.json of the demo's chart.
    """
    lines = "".join(f"{target.upper()}_IMAGE={name}\n" for target, name in names.items())
    (folder / "images.env").write_text(lines, encoding="utf-8")
    ours: dict[str, object] = {}
    demo: dict[str, object] = {}
    for image in IMAGES:
        registry, _, tag = names[image.target].partition(f"/{image.repository}:")
        where = {"repository": image.repository, "tag": tag}
        if image.dockerfile == "deploy/Dockerfile":
            ours[image.target] = {"image": {"registry": registry, **where}}
        else:
            demo |= {"registry": registry, image.target: where}
    for file, values in (("images.json", ours), ("demo-images.json", {"images": demo})):
        (folder / file).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
