"""Running programs, and waiting with a deadline."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING, TypeVar

from mailfleet_cluster.errors import CommandError, MissingToolError, NotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

T = TypeVar("T")


def run(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    seconds: float | None = None,
) -> str:
    """Run a program to its end.

    Returns:
        what it wrote to stdout.

    Raises:
        CommandError: it ended with a failure or took longer than `seconds`.
        MissingToolError: there is no such program.
    """
    words = [str(w) for w in command]
    need(words[0])
    try:
        done = subprocess.run(
            words, cwd=cwd, env=env, input=stdin, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"not done within {seconds:g} s: {' '.join(words)}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-3000:]
        raise CommandError(f"exit {done.returncode}: {' '.join(words)[:400]}\n{said}")
    return done.stdout


def works(*command: str | Path, seconds: float = 30) -> bool:
    """Whether a program exists and ends well in time."""
    try:
        run(*command, seconds=seconds)
    except (CommandError, MissingToolError):
        return False
    return True


def need(program: str) -> None:
    """Make sure that a program can be found.

    Raises:
        MissingToolError: it cannot.
    """
    if not shutil.which(program):
        hint = "install Go" if program == "go" else "run `make packages` as root"
        raise MissingToolError(f"{program} is not installed or not on PATH: {hint}")


def wait_for(what: str, probe: Callable[[], T | None], *, seconds: float, interval: float = 0.1) -> T:
    """Ask `probe` until it gives something true.

    Raises:
        NotReadyError: it did not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (answer := probe()):
        if time.monotonic() > deadline:
            raise NotReadyError(f"not within {seconds:g} s: {what}")
        time.sleep(interval)
    return answer
