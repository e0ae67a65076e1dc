"""A real Postfix of its own: configuration, queue, data and mail in one temporary folder, on a loopback port."""

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

    from certificates import Certificates

CACHE = Path(os.environ.get("MAILFLEET_CACHE") or Path.home() / ".cache" / "mailfleet")
SASLPASSWD = CACHE / "debian" / "sasl2-bin" / "usr" / "sbin" / "saslpasswd2"

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
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


_SASL = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: {users}
mech_list: PLAIN LOGIN
"""


class Postfix:
    """Accepts mail for every address at example.com and keeps it in one Maildir; refuses all others.

    Its master process wants to be started by root; it drops to the users postfix and nobody. Nothing of the
    system's own Postfix is read or written, apart from its programs.

    Attributes:
        port: SMTP on 127.0.0.1.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        *,
        next_port: int | None = None,
        certificates: Certificates | None = None,
        login: tuple[str, str] | None = None,
        **settings: str,
    ) -> None:
        """Not started yet.

        Args:
            next_port: of loopback: mail for other domains is not refused but passed on to the server there.
            certificates: it offers STARTTLS, and takes no mail without it.
            login: a user, with domain, and a password: it takes no mail from anybody else; AUTH is offered under TLS.
            settings: added to its main.cf.
        """
        # Its daemons change their user: pytest's own folders are closed to them.
        self.folder = Path(tempfile.mkdtemp(prefix="mailfleet-postfix-"))
        self.folder.chmod(0o755)
        self.port = free_port()
        self.maildir = self.folder / "mail" / "all"
        passes_on = {"relayhost": f"[127.0.0.1]:{next_port}", "smtpd_relay_restrictions": "permit_mynetworks, reject"}
        self._certificates, self._login = certificates, login
        self._settings = {**(passes_on if next_port else {}), **settings}

    def start(self) -> None:
        """Write its files, start it and wait until it answers."""
        config = self.folder / "etc"
        for name in ("etc", "queue", "data", "mail"):
            (self.folder / name).mkdir()
        shutil.chown(self.folder / "data", "postfix")
        shutil.chown(self.folder / "mail", "nobody")
        if self._certificates:
            self._settings |= {
                "smtpd_tls_security_level": "encrypt",
                "smtpd_tls_chain_files": f"{self._certificates.key}, {self._certificates.chain}",
                "smtpd_tls_auth_only": "yes",
            }
        if self._login:
            self._settings |= self._authentication(*self._login)
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

    def _authentication(self, user: str, password: str) -> dict[str, str]:
        """A database of Cyrus SASL with one user, and the settings that ask for it."""
        if not SASLPASSWD.exists():
            raise RuntimeError(f"{SASLPASSWD} is missing: run deploy/debian-packages.sh tests")
        folder = self.folder / "etc" / "sasl"  # where Debian's Postfix looks; upstream's has a setting for it
        folder.mkdir()
        users = folder / "users"
        name, _, realm = user.partition("@")
        subprocess.run(
            [SASLPASSWD, "-p", "-c", "-f", users, "-u", realm, name],
            input=password.encode(), capture_output=True, check=True,
        )  # fmt: skip
        shutil.chown(users, "postfix")
        (folder / "smtpd.conf").write_text(_SASL.format(users=users))
        return {
            "smtpd_sasl_auth_enable": "yes",
            "cyrus_sasl_config_path": str(folder),
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
        }

    def stop(self) -> None:
        """End it and remove its folder."""
        self._postfix("stop", check=False)
        wait_for("Postfix ended", lambda: self._postfix("status", check=False) != 0)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def arrived(self) -> Path:
        """Where each message that arrived is a file."""
        return self.maildir / "new"

    def messages(self) -> list[bytes]:
        """What arrived, each message with the headers that Postfix put before it, lines ended by LF."""
        return [file.read_bytes() for file in sorted(self.arrived.glob("*"))]

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
