"""Building images without a registry: debootstrap makes the base, buildah builds upon it.

buildah keeps its images and layers in the cache, apart from the machine's own. Everything that mounts
runs in a mount namespace that ends with it, so nothing stays mounted.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from mailfleet_cluster.commands import need, run
from mailfleet_cluster.places import CHECKOUT, cache, content_hash, locked, say

SUITE = "trixie"
_PACKAGES = "python3,python3-venv,ca-certificates"
_BASE = "localhost/mailfleet/base"
_TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
_PRIVATE = ("unshare", "--mount", "--propagation", "private")
# chroot isolation and the host's network: works inside containers and without a network set-up of its own.
# ulimits: without CAP_SYS_RESOURCE the defaults cannot be raised. runc: crun refuses a hybrid cgroup tree.
_BUILD = (
    *("build", "--layers", "--isolation", "chroot", "--network", "host", "--runtime", "runc"),
    *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"),
    # Whom the host trusts, so that pip works behind a company's proxy; it does not become part of the image.
    *("--volume", f"{_TRUSTED}:{_TRUSTED}:ro"),
)


def _buildah(*words: str | Path) -> str:
    for program in ("buildah", "runc", "unshare"):
        need(program)
    store = cache() / "containers"
    (store / "run").mkdir(parents=True, exist_ok=True)
    return run(*_PRIVATE, "buildah", "--root", store / "storage", "--runroot", store / "run", *words)


def has(image: str) -> bool:
    """Whether an image is in the cache."""
    return image in _buildah("images", "--format", "{{.Name}}:{{.Tag}}").split()


def base() -> str:
    """The base image: Debian with Python, made once.

    Returns:
        its name.

    Raises:
        MissingToolError: debootstrap or buildah is not installed.
        CommandError: no Debian mirror can be reached.
    """
    name = f"{_BASE}:{SUITE}-{content_hash([], SUITE, _PACKAGES)}"
    with locked("base-image"):
        if not has(name):
            _make_base(name)
    return name


def _make_base(name: str) -> None:
    need("debootstrap")
    say(f"making the base image with debootstrap ({SUITE}; once, about a minute) ...")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        _debootstrap(Path(folder) / "root")
        container = _buildah("from", "scratch").strip()
        try:
            _buildah("add", container, Path(folder) / "root", "/")
            _buildah("commit", "--quiet", container, name)
        finally:
            _buildah("rm", container)
    say(f"made the base image in {time.monotonic() - began:.0f} s")


def _debootstrap(root: Path) -> None:
    run(*_PRIVATE, "nice", "debootstrap", "--variant=minbase", f"--include={_PACKAGES}", SUITE, root)
    for what in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / what, ignore_errors=True)
    for what in ("var/cache/apt/archives/partial", "var/lib/apt/lists/partial"):
        (root / what).mkdir(parents=True)


def build(name: str, dockerfile: Path, target: str) -> None:
    """Build one target of a Dockerfile; the checkout is its context (.dockerignore says what of it)."""
    python = f"PYTHON_IMAGE={base()}"
    _buildah(*_BUILD, "--build-arg", python, "--file", dockerfile, "--target", target, "--tag", name, CHECKOUT)


def save(name: str, archive: Path) -> None:
    """Write an image to an archive as `docker save` does."""
    archive.unlink(missing_ok=True)
    _buildah("push", "--quiet", name, f"docker-archive:{archive}:{name}")
