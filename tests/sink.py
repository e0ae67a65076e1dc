"""The oracle as a child process: a programmable SMTP sink that counts independently of the ledger."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from services import wait_for, whole_lines

if TYPE_CHECKING:
    from types import TracebackType

SINK = Path(__file__).parents[1] / "deploy" / "sink"


@dataclass(frozen=True, slots=True)
class Accepted:
    """One accepted message, as the sink logged it."""

    time: float
    recipient: str
    sender: str
    message_id: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What the accepted messages add up to; see `mailfleet_sink.record.Summary.as_json`."""

    accepted: int
    recipients: int
    message_ids: int
    duplicates: int
    duplicate_recipients: int
    duplicate_message_ids: int
    peak: int
    first: float | None
    last: float | None
    mean_per_second: float | None


class Sink:
    """A sink on free ports of loopback.

    Attributes:
        port: SMTP.
        control_port: HTTP.
        log: the file with one JSON line for each accepted message.
    """

    host = "127.0.0.1"

    def __init__(self, folder: Path, *options: str) -> None:
        """Not started yet.

        Args:
            folder: for its log.
            options: more of its command line, such as ``--auth=user:password``.
        """
        self.log = folder / "accepted.jsonl"
        self.options = options
        self.port = self.control_port = 0
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, after a `kill` on the same ports and with the same log."""
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mailfleet_sink", "--host", self.host, "--log", str(self.log)),
                *("--smtp-port", str(self.port), "--control-port", str(self.control_port), *self.options),
            ],
            env={**os.environ, "PYTHONPATH": str(SINK)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        ports = json.loads(self.process.stdout.readline() or "{}")
        self.port, self.control_port = ports["smtp_port"], ports["control_port"]

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it politely."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def behave(self, *rules: dict[str, Any]) -> None:
        """Replace its rules (none: accept everything); `mailfleet_sink.behaviour.Rule` tells what a rule can say."""
        self._request("/behaviour", list(rules))

    def applied(self) -> list[int]:
        """How often each rule has been applied."""
        return [rule["applied"] for rule in json.loads(self._request("/behaviour"))]

    def accepted(self) -> list[Accepted]:
        """What it accepted, in order. Read from the file: works when it is dead, too.

        A line that is only half there is just being written, and its mail not acknowledged yet.
        """
        if not self.log.exists():
            return []
        return [Accepted(**json.loads(line)) for line in whole_lines(self.log)]

    def recipients(self) -> list[str]:
        """Whose mail it accepted, in order."""
        return [accepted.recipient for accepted in self.accepted()]

    def messages(self) -> list[tuple[str, bytes]]:
        """The last 100 messages as they came, without the stuffed dots: (recipient, body)."""
        return [(m["recipient"], base64.b64decode(m["body"])) for m in json.loads(self._request("/messages"))]

    def summary(self, *, since: float | None = None) -> Summary:
        """Counts, duplicates, peak per sliding second; `since` a unix time."""
        return Summary(**json.loads(self._request("/summary" if since is None else f"/summary?since={since!r}")))

    def disconnect(self) -> int:
        """Reset all open SMTP connections.

        Returns:
            how many there were.
        """
        count: int = json.loads(self._request("/disconnect", {}))["disconnected"]
        return count

    def reset(self) -> None:
        """Forget messages, log and rules."""
        self._request("/reset", {})

    def wait_for_accepted(self, count: int, *, seconds: float = 30) -> None:
        """Wait until it has accepted so many."""
        wait_for(f"{count} accepted messages", lambda: self.summary().accepted >= count, seconds=seconds)

    def _request(self, path: str, body: object = None) -> bytes:
        request = urllib.request.Request(
            f"http://{self.host}:{self.control_port}{path}", None if body is None else json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            data: bytes = answer.read()
            return data
