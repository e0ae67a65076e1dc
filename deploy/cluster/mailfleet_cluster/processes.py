"""The cluster's long-running processes, known by more than their process id.

A process id alone may belong to somebody else by now: a process is ours only if it also started when ours
did, in the same boot of the machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from mailfleet_cluster.commands import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


def started(pid: int) -> str | None:
    """When a living process started (clock ticks since boot, boot id); None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # proc(5): the name may hold blanks and brackets
    return None if fields[0] in "ZX" else f"{fields[19]} {boot}"


class Processes:
    """Processes that outlive us, each with its log and a file that tells which one it is."""

    def __init__(self, folder: Path) -> None:
        self._notes, self._logs = folder / "run", folder / "log"

    def start(self, name: str, command: Sequence[str | Path], *, cwd: Path) -> int:
        """Start it in a session of its own.

        Returns:
            its process id.
        """
        self._notes.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        (self._notes / name).write_text(f"{process.pid} {started(process.pid)}", encoding="utf-8")
        return process.pid

    def log(self, name: str) -> Path:
        """Where it writes to."""
        return self._logs / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """Its process id, if it lives."""
        try:
            pid, _, when = (self._notes / name).read_text(encoding="utf-8").partition(" ")
        except FileNotFoundError:
            return None
        return int(pid) if pid.isdigit() and when and started(int(pid)) == when else None

    def living(self) -> dict[str, int]:
        """Those that live, by name."""
        names = sorted(p.name for p in self._notes.glob("*"))
        return {name: pid for name in names if (pid := self.pid(name))}


def kill_all(what: str, find: Callable[[], Iterable[int]], *, seconds: float = 20) -> None:
    """kill -9 whatever `find` gives until it gives nothing: parents start children until they are gone.

    Raises:
        NotReadyError: some do not die (they hang in the kernel).
    """

    def gone() -> bool:
        pids = [p for p in find() if p != os.getpid()]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    wait_for(f"the end of {what}", gone, seconds=seconds, interval=0.05)


def living_pids() -> list[int]:
    """Every process of the machine that is no zombie."""
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and started(int(p.name))]
