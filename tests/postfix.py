"""A real Postfix of its own: configuration, queue, data and mail in one temporary folder, on a loopback port."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from services import free_port, wait_for

if TYPE_CHECKING:
    from types import TracebackType

_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
virtual unix - n n - - virtual
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """Accepts mail for every address at example.com and keeps it in one Maildir; refuses all others.

    Its master process wants to be started by root; it drops to the users postfix and nobody. Nothing of the
    system's own Postfix is read or written, apart from its programs.

    Attributes:
        port: SMTP on 127.0.0.1.
    """

    host = "127.0.0.1"

    def __init__(self, *, next_port: int | None = None, **settings: str) -> None:
        """Not started yet.

        Args:
            next_port: of loopback: mail for other domains is not refused but passed on to the server there.
            settings: added to its main.cf.
        """
        # Its daemons change their user: pytest's own folders are closed to them.
        self.folder = Path(tempfile.mkdtemp(prefix="mailfleet-postfix-"))
        self.folder.chmod(0o755)
        self.port = free_port()
        self.maildir = self.folder / "mail" / "all"
        passes_on = {"relayhost": f"[127.0.0.1]:{next_port}", "smtpd_relay_restrictions": "permit_mynetworks, reject"}
        self._settings = {**(passes_on if next_port else {}), **settings}

    def start(self) -> None:
        """Write its files, start it and wait until it answers."""
        config = self.folder / "etc"
        for name in ("etc", "queue", "data", "mail"):
            (self.folder / name).mkdir()
        shutil.chown(self.folder / "data", "postfix")
        shutil.chown(self.folder / "mail", "nobody")
        (config / "mailboxes").write_text("/@example\\.com$/ all/\n")
        main = {
            "compatibility_level": "3.6",
            "queue_directory": self.folder / "queue",
            "data_directory": self.folder / "data",
            "maillog_file": self.folder / "log",
            "maillog_file_prefixes": self.folder,
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "myhostname": "postfix.test",
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "alias_maps": "",
            "local_recipient_maps": "",
            "local_header_rewrite_clients": "",
            "virtual_mailbox_domains": "example.com",
            "virtual_mailbox_base": self.folder / "mail",
            "virtual_mailbox_maps": f"regexp:{config / 'mailboxes'}",
            "virtual_uid_maps": "static:65534",
            "virtual_gid_maps": "static:65534",
            "smtpd_relay_restrictions": "reject_unauth_destination",
            "smtpd_recipient_restrictions": "",
            "smtpd_client_connection_rate_limit": "0",
            "disable_dns_lookups": "yes",
            **self._settings,
        }
        (config / "main.cf").write_text("".join(f"{key} = {value}\n" for key, value in main.items()))
        (config / "master.cf").write_text(_MASTER.format(port=self.port))
        self._postfix("start")
        wait_for("Postfix runs", lambda: self._postfix("status", check=False) == 0)

    def stop(self) -> None:
        """End it and remove its folder."""
        self._postfix("stop", check=False)
        wait_for("Postfix ended", lambda: self._postfix("status", check=False) != 0)
        shutil.rmtree(self.folder, ignore_errors=True)

    def messages(self) -> list[bytes]:
        """What arrived, each message with the headers that Postfix put before it, lines ended by LF."""
        return [file.read_bytes() for file in sorted((self.maildir / "new").glob("*"))]

    def wait_for_messages(self, count: int) -> list[bytes]:
        """Wait until so many have arrived."""
        wait_for(f"{count} messages delivered", lambda: len(self.messages()) >= count)
        return self.messages()

    def _postfix(self, verb: str, *, check: bool = True) -> int:
        done = subprocess.run(
            ["postfix", "-c", str(self.folder / "etc"), verb], capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            log = self.folder / "log"
            raise RuntimeError(f"postfix {verb}: {done.stderr}{log.read_text() if log.exists() else ''}")
        return done.returncode

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
