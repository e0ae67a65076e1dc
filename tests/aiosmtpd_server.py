"""A real aiosmtpd of its own (Debian's python3-aiosmtpd): it offers neither PIPELINING nor CHUNKING."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from services import free_port, wait_for

if TYPE_CHECKING:
    from types import TracebackType

PROGRAM = "/usr/bin/aiosmtpd"


class Aiosmtpd:
    """Accepts every mail and keeps it in a Maildir.

    Attributes:
        port: SMTP on 127.0.0.1.
    """

    host = "127.0.0.1"

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mailfleet-aiosmtpd-")
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def arrived(self) -> Path:
        """Where each message that arrived is a file."""
        return Path(self._folder.name) / "mail" / "new"

    def __enter__(self) -> Self:
        where = f"{self.host}:{self.port}"
        mail = str(Path(self._folder.name) / "mail")
        self._process = subprocess.Popen([PROGRAM, "-n", "-l", where, "-c", "aiosmtpd.handlers.Mailbox", mail])
        try:
            wait_for("aiosmtpd answers", self._answers)
        except BaseException:
            self._stop()
            raise
        return self

    def _answers(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        self._folder.cleanup()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
