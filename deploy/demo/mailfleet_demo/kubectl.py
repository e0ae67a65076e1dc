"""kubectl and helm as a person uses them: one process for each thing done.

Programs: `kubectl` and `helm` on PATH, or $KUBECTL and $HELM; the cluster is the one of $KUBECONFIG.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shlex
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import CommandError, LateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ")


def run(*command: str, stdin: str | None = None, seconds: float = 60) -> str:
    """Run a program to its end.

    Returns:
        what it wrote to stdout.

    Raises:
        CommandError: it ended with a failure, or not within `seconds`.
    """
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"not done within {seconds:g} s: {shlex.join(command)}") from error
    except FileNotFoundError as error:
        raise CommandError(f"{command[0]} is not on PATH: run this as `make demo`, or set KUBECTL and HELM") from error
    if done.returncode:
        raise CommandError(f"exit {done.returncode}: {shlex.join(command)}\n{done.stderr.strip()[-3000:]}")
    return done.stdout


def helm(*arguments: str, seconds: float = 300) -> str:
    """Run helm."""
    return run(os.environ.get("HELM", "helm"), *arguments, seconds=seconds)


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl in one namespace."""

    namespace: str

    def command(self, *arguments: str) -> tuple[str, ...]:
        """The whole command line."""
        return (*shlex.split(os.environ.get("KUBECTL", "kubectl")), "--namespace", self.namespace, *arguments)

    def __call__(self, *arguments: str, stdin: str | None = None, seconds: float = 60) -> str:
        """Run it; what it wrote to stdout."""
        return run(*self.command(*arguments), stdin=stdin, seconds=seconds)

    def json(self, *arguments: str) -> dict[str, Any]:
        """`kubectl ... -o json` as a value."""
        found: dict[str, Any] = json.loads(self(*arguments, "-o", "json"))
        return found

    def apply(self, *manifests: dict[str, Any]) -> str:
        """Apply values as manifests."""
        return self("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))

    @contextlib.contextmanager
    def watch(self, *arguments: str) -> Iterator[Callable[[float], dict[str, Any] | None]]:
        """Watch what `kubectl get ARGUMENTS --watch` shows.

        Yields:
            a function that waits so many seconds at most for the next version of an object; None if none came.
            It raises CommandError once the watch has ended (the API server went away).
        """
        command = self.command("get", *arguments, "--watch", "-o", "json")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        versions: queue.Queue[dict[str, Any] | None] = queue.Queue()

        def read() -> None:
            assert process.stdout
            for version in objects(process.stdout):
                versions.put(version)
            versions.put(None)

        def following(seconds: float) -> dict[str, Any] | None:
            try:
                version = versions.get(timeout=max(0.0, seconds))
            except queue.Empty:
                return None
            if version is None:
                assert process.stderr
                raise CommandError(f"the watch has ended: {process.stderr.read().strip()[-1000:]}")
            return version

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield following
        finally:
            _end(process, reader)

    @contextlib.contextmanager
    def forward(self, target: str, port: int, *, seconds: float = 30) -> Iterator[int]:
        """Reach a port of a pod or Service through the API server.

        Yields:
            the port on 127.0.0.1.

        Raises:
            CommandError: kubectl cannot; LateError: it does not within `seconds`.
        """
        command = self.command("port-forward", target, f":{port}")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        lines: queue.Queue[str] = queue.Queue()

        def read() -> None:  # to the end, or kubectl would block on a full pipe
            assert process.stdout
            for line in process.stdout:
                lines.put(line)
            lines.put("")

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield _local_port(lines, shlex.join(command), seconds)
        finally:
            _end(process, reader)


def _end(process: subprocess.Popen[str], reader: threading.Thread) -> None:
    process.terminate()
    reader.join()
    with process:  # waits, and closes its pipes
        pass


def _local_port(lines: queue.Queue[str], command: str, seconds: float) -> int:
    said, deadline = "", time.monotonic() + seconds
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise LateError(f"no port within {seconds:g} s: {command}") from None
        if not line:
            raise CommandError(f"{command}\n{said.strip()}")
        if found := FORWARDING.search(line):
            return int(found[1])
        said += line


def objects(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream in which one follows another: each a line, or indented over several."""
    text = ""
    for line in lines:
        text += line
        whole = text == line and line.rstrip("\n").endswith("}")
        if whole or line.rstrip("\n") == "}":  # kubectl indents all but the outermost brace
            yield json.loads(text)
            text = ""
