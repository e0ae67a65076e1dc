"""Where things lie: the checkout, the cache, and the state of the running cluster."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHECKOUT = Path(__file__).resolve().parents[3]
"""The root of the project."""


def cache() -> Path:
    """What is costly to make and worth keeping: binaries, base image, image layers ($MAILFLEET_CACHE)."""
    named = os.environ.get("MAILFLEET_CACHE")
    return Path(named).absolute() if named else Path.home() / ".cache" / "mailfleet"


def state() -> Path:
    """Everything of the running cluster; `make cluster-down` removes it ($MAILFLEET_STATE)."""
    named = os.environ.get("MAILFLEET_STATE")
    return Path(named).absolute() if named else usual_state()


def usual_state() -> Path:
    """Where the state is unless the person says otherwise."""
    root = Path("/var/lib") if os.geteuid() == 0 else Path.home() / ".local" / "state"
    return root / "mailfleet-cluster"


def say(text: str) -> None:
    """Tell the person what goes on; results go to stdout, this does not."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock of this name: two runs take turns. It ends with the process, however that ends."""
    folder = cache() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    # Python opens files close-on-exec: a cluster's processes do not inherit the lock.
    with (folder / name).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that holds the lock of {name} ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def content_hash(paths: Iterable[Path], *words: str) -> str:
    """12 hex digits over the content and the relative names of files and folders, and over further words.

    Paths are relative to the checkout or absolute. Compiled Python is no content.
    """
    digest = hashlib.sha256()
    for path in (CHECKOUT / p for p in paths):
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if "__pycache__" in file.parts or file.suffix == ".pyc":
                continue
            name = file.relative_to(CHECKOUT) if file.is_relative_to(CHECKOUT) else Path(file.name)
            data = file.read_bytes()
            digest.update(f"{name} {file.stat().st_mode & 0o111:o} {len(data)}\n".encode() + data)
    digest.update("\0".join(words).encode())
    return digest.hexdigest()[:12]
