"""One measurement: a sink, a sender, what /proc says of all who took part; and what a benchmark leaves in build/."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

TICKS = os.sysconf("SC_CLK_TCK")
BUILD = Path(__file__).parents[1] / "build"


LOOK_SECONDS = 2.0


def busy_share() -> float:
    """How much of all cores others use now, 0 to 1; not the load average, which remembers the measurement before."""

    def times() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]  # idle, and waiting for a disk

    total, idle = times()
    time.sleep(LOOK_SECONDS)
    now_total, now_idle = times()
    return 1 - (now_idle - idle) / max(1, now_total - total)


def machine() -> dict[str, Any]:
    """Where and when it is measured, and what others do there; to be taken before the measurement."""
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    postgres = sorted(Path("/usr/lib/postgresql").glob("*"), key=lambda p: int(p.name))
    return {
        "moment": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "processor": processor,
        "processors": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgres": postgres[-1].name if postgres else "",
        "others": round(busy_share(), 3),
    }


def save(name: str, document: dict[str, Any]) -> None:
    """Leave figures in build/, where `make performance` finds them."""
    BUILD.mkdir(exist_ok=True)
    (BUILD / f"{name}.json").write_text(json.dumps(document, indent=1), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one sender. CPU is user and system time, in microseconds a message.

    Attributes:
        per_second: messages from the first to the last that the sink accepted.
        cpu_us: of the sender's process, from the first accepted message to its exit.
        rss_mb: the process' highest resident memory up to the last message, in 10^6 octets.
        postgres_us, redis_us, sink_us: the servers' meanwhile; Postgres with its backends, the sink from its start.
        right: count and sum of hashes at the sink are those expected.
        lapsed: permits of the limiter that were not used in time, a message.
    """

    per_second: float
    cpu_us: float
    rss_mb: float
    postgres_us: float
    redis_us: float
    sink_us: float
    right: bool
    lapsed: float


class SinkProcess:
    """The Go sink as a child process."""

    def __init__(self, binary: Path, *, expect: int, options: tuple[str, ...]) -> None:
        self.process = subprocess.Popen(
            [binary, f"-expect={expect}", *options], stdout=subprocess.PIPE, stderr=None, text=True
        )
        self.port: int = self.line("listening")["port"]

    @property
    def output(self) -> IO[str]:
        """What it says."""
        assert self.process.stdout is not None
        return self.process.stdout

    def line(self, event: str) -> dict[str, Any]:
        """The next line that it says, which must be this event."""
        said: dict[str, Any] = json.loads(self.output.readline() or "{}")
        if said.get("event") != event:
            raise RuntimeError(f"the sink says {said} where {event!r} was expected: has the sender ended early?")
        return said

    def end(self) -> dict[str, Any]:
        """End it; its counts."""
        self.process.terminate()
        said: dict[str, Any] = {}
        for line in self.output:
            said = json.loads(line)
        self.process.wait(10)
        return said


@contextmanager
def sink(binary: Path, *, expect: int, options: tuple[str, ...]) -> Iterator[SinkProcess]:
    """A sink for one run."""
    started = SinkProcess(binary, expect=expect, options=options)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()
        started.output.close()


def _ticks(pid: int, *, reaped: bool = False) -> int:
    """User and system time of a process, with that of the children that it has waited for if `reaped`."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if reaped else 13]))


def cpu_seconds(pid: int) -> float:
    """CPU time of a server's process and of its children, those that ended among them."""
    children = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    total = _ticks(pid, reaped=True)
    for child in children:
        with suppress(FileNotFoundError, ProcessLookupError):
            total += _ticks(child)
    return total / TICKS


def peak_rss_mb(pid: int) -> float:
    """Not getrusage: its figure survives exec, so a large parent would be counted."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def _end_with(process: subprocess.Popen[bytes], started: SinkProcess) -> None:
    """Wait until the sender ends, without reaping it, and end the sink with it: nobody waits for mails then.

    All that was sent is counted by then, so the line `last` comes before `end`, or never.
    """
    ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    if ended is not None and ended.si_status:
        started.process.kill()
    else:
        started.process.terminate()


def observe(
    process: subprocess.Popen[bytes], started: SinkProcess, *, servers: tuple[int, int], expected: tuple[int, str]
) -> Measured:
    """Watch a sender that has just been started, until it ends.

    Args:
        process: of the sender; one process, no children.
        started: the sink it sends to.
        servers: process ids of Postgres and Redis.
        expected: count and sum of hashes.

    Raises:
        RuntimeError: the sender failed.
    """
    pids = (process.pid, *servers)
    watch = threading.Thread(target=_end_with, args=(process, started), daemon=True)
    watch.start()
    started.line("first")
    before = [cpu_seconds(pid) for pid in pids]
    started.line("last")
    rss_mb = peak_rss_mb(process.pid)
    watch.join()  # the process stays in /proc until it is waited for
    after = [_ticks(process.pid) / TICKS, *(cpu_seconds(pid) for pid in servers)]
    if code := process.wait():
        raise RuntimeError(f"the sender ended with {code}")
    said = started.end()
    count = expected[0]
    cpu, postgres, redis = ((b - a) / count * 1e6 for a, b in zip(before, after, strict=True))
    return Measured(
        per_second=(count - 1) / said["seconds"],
        cpu_us=cpu,
        rss_mb=rss_mb,
        postgres_us=postgres,
        redis_us=redis,
        sink_us=said["cpu_seconds"] / count * 1e6,
        right=(said["accepted"], said["hash"]) == expected,
        lapsed=0.0,  # the sender's log knows
    )
