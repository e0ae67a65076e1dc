"""Starts the sender's verbs by fork: a process that has its libraries loaded already costs 10 ms instead of 900.

`Zygote` is used by the harness; `python -m faults.zygote` is its other half. A child is a process like any
other: it is killed, stopped and starved for itself.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Child:
    """One process of the zygote's, with the methods of `subprocess.Popen` that `fleet` uses."""

    pid: int
    returncode: int | None = None
    _over: threading.Event = field(default_factory=threading.Event)

    def ended(self, code: int) -> None:
        """The zygote has reaped it."""
        self.returncode = code
        self._over.set()

    def poll(self) -> int | None:
        """Its exit code, or None."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, when it has ended."""
        if not self._over.wait(timeout):
            raise TimeoutError(f"process {self.pid} has not ended within {timeout} s")
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """A signal, if it has not ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(signal.SIGKILL)


class Zygote:
    """The harness's half."""

    def __init__(self, first: Path) -> None:
        """Start it; it looks for packages in `first`, then where this process does."""
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(first), *sys.path])}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faults.zygote"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ,
        )  # fmt: skip
        self._lock, self._born, self._children = threading.Lock(), threading.Semaphore(0), dict[int, Child]()
        self._last: Child | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def spawn(self, verb: str, environ: dict[str, str], log: Path) -> Child:
        """Start a verb with this environment; standard output and error go to `log`."""
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"verb": verb, "environ": environ, "log": str(log)}) + "\n")
            self._process.stdin.flush()
            if not self._born.acquire(timeout=30):
                raise TimeoutError("the zygote bears no child")
            assert self._last is not None
            return self._last

    def close(self) -> None:
        """End it; its children must have ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._reader.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "code" in said:
                self._children.pop(said["pid"]).ended(said["code"])
            else:
                self._last = self._children[said["pid"]] = Child(said["pid"])
                self._born.release()


def main() -> None:
    """Wait for orders on standard input; tell births and deaths on standard output."""
    import mailfleet_sender.planning  # noqa: PLC0415
    import mailfleet_sender.sending  # noqa: F401, PLC0415

    gc.freeze()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    waiting = b""
    while True:
        ready, _, _ = select.select([0, wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
            _reap()
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if not data:
                return
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                order = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    _become(order)
                _tell(pid=pid)


def _tell(**what: Any) -> None:
    os.write(1, (json.dumps(what) + "\n").encode())


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _tell(pid=pid, code=os.waitstatus_to_exitcode(status))


def _become(order: dict[str, Any]) -> None:
    """Be the verb, as a fresh process would: environment, arguments, signals, standard streams. Ends by SystemExit."""
    from mailfleet_sender.__main__ import main as verb  # noqa: PLC0415

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(order["environ"])
    time.tzset()
    sys.argv = ["mailfleet-sender", order["verb"]]
    verb()
    sys.exit(0)


if __name__ == "__main__":
    main()
