"""What was accepted: a log that survives kill -9, and what it adds up to."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_MESSAGE_ID = re.compile(rb"^message-id:\s*(<[^>\r\n]*>|\S+)", re.IGNORECASE | re.MULTILINE)


class Summary:
    """What a log of accepted messages adds up to; each message costs the same."""

    def __init__(self) -> None:
        self.accepted = 0
        self.duplicates = 0
        self.peak = 0
        self.first: float | None = None
        self.last: float | None = None
        self._recipients: Counter[str] = Counter()
        self._message_ids: Counter[str] = Counter()
        self._second: deque[float] = deque()

    def add(self, when: float, recipient: str, message_id: str) -> None:
        """Count one message."""
        self.accepted += 1
        self.duplicates += recipient in self._recipients or (bool(message_id) and message_id in self._message_ids)
        self._recipients[recipient] += 1
        if message_id:
            self._message_ids[message_id] += 1
        self.first = when if self.first is None else min(self.first, when)
        self.last = when if self.last is None else max(self.last, when)
        self._second.append(when)
        while self._second[0] <= when - 1.0:
            self._second.popleft()
        self.peak = max(self.peak, len(self._second))

    def as_json(self) -> dict[str, Any]:
        """For GET /summary.

        accepted: messages. recipients, message_ids: distinct ones. duplicates: messages whose recipient or Message-ID
        had come before. peak: most messages in any one second, wherever it begins. first, last: unix seconds.
        mean_per_second: over the time from first to last.
        """
        span = (self.last or 0.0) - (self.first or 0.0)
        return {
            "accepted": self.accepted,
            "recipients": len(self._recipients),
            "message_ids": len(self._message_ids),
            "duplicates": self.duplicates,
            "duplicate_recipients": self.accepted - len(self._recipients),
            "duplicate_message_ids": sum(self._message_ids.values()) - len(self._message_ids),
            "peak": self.peak,
            "first": self.first,
            "last": self.last,
            "mean_per_second": (self.accepted - 1) / span if span > 0 else None,
        }


class Record:
    """The accepted messages: one JSON line each in a file, written before the 250 is, and the last bodies in memory."""

    def __init__(self, path: Path, *, keep: int = 100, folder: Path | None = None) -> None:
        """Open the log; what an earlier sink left there counts.

        Args:
            path: the log.
            keep: how many of the last messages to keep whole, in memory.
            folder: keep all messages whole, in files of this folder.
        """
        self.path, self.folder = path, folder
        self.messages: deque[tuple[dict[str, Any], bytes]] = deque(maxlen=keep)
        self.summary = summarise(path)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")  # a line torn by a full disk must not swallow the next one

    def accept(self, sender: str, recipients: list[str], body: bytes) -> None:
        """Log one message, one line for each of its recipients. When this returns, a kill -9 does not lose it."""
        now = time.time()
        found = _MESSAGE_ID.search(body[: end if (end := body.find(b"\r\n\r\n")) >= 0 else len(body)])
        message_id = found[1].decode("utf-8", "replace") if found else ""
        digest = hashlib.sha256(body).hexdigest()
        lines = []
        for recipient in recipients:
            entry = {
                "time": now,
                "recipient": recipient,
                "sender": sender,
                "message_id": message_id,
                "size": len(body),
                "sha256": digest,
            }
            lines.append(json.dumps(entry) + "\n")
            self.messages.append((entry, body))
        _write_all(self._file, "".join(lines).encode())
        for recipient in recipients:
            self.summary.add(now, recipient, message_id)
            if self.folder is not None:
                (self.folder / f"{self.summary.accepted:09d}.eml").write_bytes(body)

    def reset(self) -> None:
        """Forget everything, in the file too."""
        os.ftruncate(self._file, 0)
        self.summary = Summary()
        self.messages.clear()

    def close(self) -> None:
        """Close the log."""
        os.close(self._file)


def summarise(path: Path, since: float = 0.0) -> Summary:
    """Add up a log.

    Args:
        path: the log; none is an empty one.
        since: only what was accepted at or after this time, unix seconds.
    """
    summary = Summary()
    if not path.exists():
        return summary
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # a torn line: its 250 was never sent
            if entry["time"] >= since:
                summary.add(entry["time"], entry["recipient"], entry["message_id"])
    return summary


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
