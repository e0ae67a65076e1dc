"""A real Exim of its own: configuration, spool and mail in one temporary folder, on a loopback port. It has CHUNKING.

Debian's package excludes Postfix's, so it is not installed: deploy/debian-packages.sh unpacks it into the cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from services import free_port, wait_for

if TYPE_CHECKING:
    from types import TracebackType

CACHE = Path(os.environ.get("MAILFLEET_CACHE") or Path.home() / ".cache" / "mailfleet")
PROGRAM = CACHE / "debian" / "exim4-daemon-light" / "usr" / "sbin" / "exim4"

_CONFIGURATION = """\
primary_hostname = exim.test
exim_path = {folder}/exim4
exim_user = nobody
exim_group = nogroup
deliver_drop_privilege = true
never_users =
keep_environment =
spool_directory = {folder}/spool
log_file_path = {folder}/spool/%slog
pid_file_path = {folder}/spool/pid
check_spool_space = 0
check_spool_inodes = 0
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
tls_advertise_hosts =
chunking_advertise_hosts = *
host_lookup =
rfc1413_query_timeout = 0s
smtp_accept_max_per_connection = 100000
smtp_accept_queue_per_connection = 0
smtp_max_unknown_commands = 1
acl_smtp_rcpt = recipient
acl_smtp_data = accept
begin acl
recipient:
  accept domains = example.com
  deny message = relay not permitted
begin routers
all:
  driver = accept
  transport = maildir
begin transports
maildir:
  driver = appendfile
  maildir_format
  directory = {folder}/mail
  user = nobody
  group = nogroup
"""


class Exim:
    """Accepts mail for every address at example.com and keeps it in one Maildir; refuses all others. Needs root.

    Attributes:
        port: SMTP on 127.0.0.1.
    """

    host = "127.0.0.1"

    def __init__(self) -> None:
        # Its processes change their user: pytest's own folders are closed to them.
        self.folder = Path(tempfile.mkdtemp(prefix="mailfleet-exim-"))
        self.folder.chmod(0o755)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def arrived(self) -> Path:
        """Where each message that arrived is a file, with the headers that Exim put before it, lines ended by LF."""
        return self.folder / "mail" / "new"

    def __enter__(self) -> Self:
        if not PROGRAM.exists():
            raise RuntimeError(f"{PROGRAM} is missing: run deploy/debian-packages.sh tests")
        shutil.copy(PROGRAM, self.folder / "exim4")
        for name in ("spool", "mail"):
            (self.folder / name).mkdir()
            shutil.chown(self.folder / name, "nobody", "nogroup")
        configuration = self.folder / "exim.conf"
        configuration.write_text(_CONFIGURATION.format(folder=self.folder, port=self.port))
        self._process = subprocess.Popen(
            [self.folder / "exim4", "-C", configuration, "-bdf"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        try:
            wait_for("Exim answers", self._answers)
        except BaseException:
            self._stop()
            raise
        return self

    def _answers(self) -> bool:
        log = self.folder / "spool" / "mainlog"
        return log.exists() and "daemon started" in log.read_text()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
