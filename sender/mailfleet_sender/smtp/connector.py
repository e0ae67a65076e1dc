"""Opening connections: EHLO, TLS and AUTH by aiosmtplib on a socket dialled here, then handed to our own protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, NoReturn

import aiosmtplib

from mailfleet_sender.contract.preflight import RelayFault
from mailfleet_sender.contract.relay import TlsMode, Verification
from mailfleet_sender.errors import RelayUnavailable, SenderFault

from .connection import Connection
from .engine import as_transport
from .extensions import Extensions, Offer
from .mode import Modes
from .replies import Meaning, Phase, Reply, classify, enhanced_code
from .scrub import capped, scrubbed
from .timeouts import Timeouts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mailfleet_sender.contract.relay import Relay

MESSAGE_BYTES = 256
"""What a condition's message may have (API.md)."""


class Connector:
    """Makes connections to one relay, all alike."""

    def __init__(
        self,
        relay: Relay,
        *,
        username: str | None = None,
        password: str | None = None,
        ca_file: Path | str | None = None,
        timeouts: Timeouts | None = None,
        modes: Modes | None = None,
    ) -> None:
        """Remember how to connect; nothing is opened or read yet.

        Args:
            relay: host, port, TLS, hello name, messages per connection.
            username: for AUTH; needed if `relay.authenticate`.
            password: for AUTH.
            ca_file: a PEM bundle that replaces the system's certificates.
            timeouts: of each step.
            modes: what is known of the relay; shared by all connections of a sender.
        """
        self._relay = relay
        self._username, self._password = username, password
        self._ca_file = ca_file
        self._timeouts, self._modes = timeouts or Timeouts(), modes or Modes()
        self._tls: ssl.SSLContext | None = None
        self._where = f"relay {relay.host}:{relay.port}"

    async def connect(self) -> Connection:
        """Open a connection that is ready for mail.

        Raises:
            RelayUnavailable: the relay cannot be reached, cannot be trusted, or takes no mail now; goes on by itself
                once the cause is mended. The message names host, port and the remedy.
            SenderFault: the relay refuses our credentials for good, or they are missing.
        """
        client, _, _ = await self._ready()
        return Connection(
            as_transport(client.transport),
            Extensions.of(client.esmtp_extensions),
            messages=self._relay.connections.messages_per_connection,
            idle_seconds=self._relay.connections.idle_timeout_seconds,
            timeouts=self._timeouts,
            pipelining=self._relay.pipelining,
            modes=self._modes,
        )

    async def probe(self) -> Offer:
        """Open a connection as for mail, see what the relay offers, and say goodbye.

        Raises:
            RelayUnavailable, SenderFault: as `connect` does; `fault` says in one word what is wrong.
        """
        client, sock, keywords = await self._ready()
        encrypted = client.get_transport_info("ssl_object")
        offer = Offer(
            tuple(sorted(keyword.upper() for keyword in keywords)),
            tuple(dict.fromkeys(mechanism.upper() for mechanism in client.server_auth_methods)),
            encrypted.version() if encrypted else None,
        )
        try:
            await client.quit(timeout=self._timeouts.quit_seconds)
        except (aiosmtplib.SMTPException, OSError):
            pass  # it was polite to say so; what we wanted to know is known
        finally:
            _cut(client, sock)
        return offer

    async def _ready(self) -> tuple[aiosmtplib.SMTP, socket.socket, set[str]]:
        """A client after EHLO, TLS and AUTH, its socket, and the keywords of every EHLO."""
        relay = self._relay
        if relay.authenticate and not (self._username and self._password):
            raise SenderFault(
                self._said("asks for AUTH, but user name or password is empty: mend the relay's auth.secretRef"),
                RelayFault.CREDENTIALS_MISSING,
            )
        if relay.tls.mode is not TlsMode.NONE and self._tls is None:
            self._tls = await asyncio.to_thread(self._tls_context)
        client = aiosmtplib.SMTP(
            hostname=relay.host,
            use_tls=relay.tls.mode is TlsMode.IMPLICIT,
            start_tls=False,
            tls_context=self._tls,
            local_hostname=relay.hello_name or socket.gethostname(),
            timeout=self._timeouts.greeting_seconds,
        )
        with self._failures(Phase.CONNECT):
            sock = await self._dial()
        try:
            return client, sock, await self._open(client, sock)
        except BaseException:
            _cut(client, sock)
            raise

    async def _open(self, client: aiosmtplib.SMTP, sock: socket.socket) -> set[str]:
        relay = self._relay
        with self._failures(Phase.CONNECT):
            await client.connect(sock=sock)
        await self._greet(client)
        keywords = {*client.esmtp_extensions}
        if relay.tls.mode is TlsMode.START_TLS:
            if not client.supports_extension("starttls"):
                raise RelayUnavailable(
                    self._said(
                        "does not offer STARTTLS: set the relay's tls.mode to Implicit or None, or mend the relay"
                    ),
                    RelayFault.START_TLS_NOT_OFFERED,
                )
            with self._failures(Phase.STARTTLS):
                await client.starttls()
            await self._greet(client)
            keywords |= {*client.esmtp_extensions}
        if relay.authenticate:
            await self._log_in(client)
        if client.transport is None or client.transport.is_closing():
            raise RelayUnavailable(
                self._said("closed the connection right after its opening: look at the relay's log"),
                RelayFault.CONNECTION_CLOSED,
            )
        return keywords

    async def _dial(self) -> socket.socket:
        """A TCP connection to the first of the host's addresses that takes one."""
        loop = asyncio.get_running_loop()
        addresses = await loop.getaddrinfo(self._relay.host, self._relay.port, type=socket.SOCK_STREAM)
        error: OSError = OSError("the name has no address")
        for family, kind, protocol, _, address in addresses:
            sock = socket.socket(family, kind, protocol)
            sock.settimeout(0)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                async with asyncio.timeout(self._timeouts.dial_seconds):
                    await loop.sock_connect(sock, address)
            except OSError as failure:  # TimeoutError is one
                sock.close()
                error = failure
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise error

    async def _greet(self, client: aiosmtplib.SMTP) -> None:
        """EHLO, or HELO with those that do not know it."""
        with self._failures(Phase.EHLO):
            try:
                await client.ehlo()
            except aiosmtplib.SMTPHeloError as error:
                if not 500 <= error.code <= 504 or not client.is_connected:
                    raise
                await client.helo()

    async def _log_in(self, client: aiosmtplib.SMTP) -> None:
        if not client.supported_auth_methods:
            remedy = "remove the relay's auth, or allow AUTH PLAIN, LOGIN or CRAM-MD5 on this port"
            if self._relay.tls.mode is TlsMode.NONE:
                remedy += "; many relays offer AUTH only under TLS (tls.mode)"
            others = " ".join(mechanism.upper() for mechanism in client.server_auth_methods)
            offers = f"offers AUTH only by {scrubbed(others)}" if others else "does not offer AUTH"
            raise SenderFault(self._said(offers, remedy), RelayFault.AUTH_NOT_OFFERED)
        with self._failures(Phase.AUTH):
            await client.login(self._username or "", self._password or "")

    def _tls_context(self) -> ssl.SSLContext:
        """Reads files: not for the event loop's thread."""
        try:
            context = ssl.create_default_context(cafile=self._ca_file)
        except (OSError, ssl.SSLError) as error:
            raise RelayUnavailable(
                self._said(f"cannot be verified: the CA of caSecretRef is no PEM bundle ({type(error).__name__})"),
                RelayFault.CA_INVALID,
            ) from None
        context.minimum_version = _TLS_VERSIONS[self._relay.tls.minimum_version]
        if self._relay.tls.verification is Verification.NONE:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    @contextlib.contextmanager
    def _failures(self, phase: Phase) -> Iterator[None]:
        """Turn whatever fails in a step of the opening into one of our two errors.

        Without `from`: what aiosmtplib knows of the exchange may hold credentials.
        """
        try:
            yield
        except aiosmtplib.SMTPResponseException as error:
            self._refused(phase, error.code, error.message)
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            fault, text = _reason(phase, error, self._timeouts)
            raise RelayUnavailable(self._said(text), fault) from None

    def _refused(self, phase: Phase, code: int, text: str) -> NoReturn:
        if not 200 <= code <= 599:  # aiosmtplib's -1: no reply at all; another protocol listens there
            raise RelayUnavailable(
                self._said(f"speaks no SMTP that is understood ({phase})", "check host, port and tls.mode"),
                RelayFault.NOT_SMTP,
            ) from None
        text = text.replace("\n", " ")
        meaning = classify(phase, Reply(code, text, enhanced_code(code, text))).meaning
        said = f"answered {phase} with {code} {scrubbed(text, *self._secrets())}"
        if meaning is Meaning.SENDER_FAULT:
            remedy = "check user name and password of the relay's auth.secretRef"
            raise SenderFault(self._said(said, remedy), RelayFault.CREDENTIALS_REFUSED) from None
        fault = RelayFault.TLS_FAILED if phase is Phase.STARTTLS else RelayFault.RELAY_REFUSES
        raise RelayUnavailable(self._said(said, _REMEDIES[phase]), fault) from None

    def _secrets(self) -> Iterator[str]:
        """What must not be seen even if a relay repeats it."""
        for secret in (self._password, self._username):
            if secret:
                yield secret
                yield base64.b64encode(secret.encode()).decode()

    def _said(self, text: str, remedy: str = "") -> str:
        """A message of at most 256 bytes; what is too long is the relay's words, never the remedy."""
        tail = f": {remedy}" if remedy else ""
        return capped(f"{self._where} {text}", MESSAGE_BYTES - len(tail.encode())) + tail


_TLS_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_REMEDIES = {
    Phase.CONNECT: "it takes no mail from here now; check its access rules and its log",
    Phase.EHLO: "check the relay's helloName",
    Phase.STARTTLS: "the relay's TLS is broken; look at its log",
    Phase.AUTH: "the relay cannot check credentials now; look at its log",
}


def _reason(phase: Phase, error: Exception, timeouts: Timeouts) -> tuple[RelayFault, str]:
    """What went wrong below SMTP, in one word, and with the remedy for people."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    known = (found for cause in causes if (found := _known(cause)) is not None)
    if (found := next(known, None)) is not None:
        return found
    if isinstance(error, TimeoutError):
        seconds = timeouts.dial_seconds if phase is Phase.CONNECT else timeouts.greeting_seconds
        return RelayFault.TIMEOUT, (
            f"did not answer ({phase}) within {seconds:g} s: check host, port, tls.mode, firewalls and network policies"
        )
    if isinstance(error, ConnectionError):
        text = f"closed the connection ({phase}): check tls.mode and the relay's access rules"
        return RelayFault.CONNECTION_CLOSED, text
    if isinstance(error, OSError):
        what = error.strerror or type(error).__name__
        return RelayFault.UNREACHABLE, f"cannot be reached ({what}): check host, port and network policies"
    return RelayFault.NOT_SMTP, f"speaks no SMTP that is understood ({phase}): check host, port and tls.mode"


def _known(cause: BaseException) -> tuple[RelayFault, str] | None:
    match cause:
        case ssl.SSLCertVerificationError():
            return RelayFault.CERTIFICATE_INVALID, (
                f"failed TLS verification ({cause.verify_message}): "
                "mend its certificate, name the CA in tls.caSecretRef, or set tls.verification to None"
            )
        case ssl.SSLError():
            return RelayFault.TLS_FAILED, (
                f"failed the TLS handshake ({cause.reason or 'no TLS'}): check tls.mode (StartTLS for port 587, "
                "Implicit for 465), and tls.minimumVersion against the relay's TLS versions"
            )
        case socket.gaierror():
            text = "has a name that cannot be resolved: check the relay's host and the cluster's DNS"
            return RelayFault.HOST_NOT_FOUND, text
        case ConnectionRefusedError():
            return RelayFault.CONNECTION_REFUSED, "refuses connections: check host and port, and that the relay runs"
        case _:
            return None


def _cut(client: aiosmtplib.SMTP, sock: socket.socket) -> None:
    """Close for good: TLS would wait for the relay's goodbye, for which the loop may not live long enough."""
    client.close()
    with contextlib.suppress(OSError):  # it is closed already
        sock.shutdown(socket.SHUT_RDWR)
