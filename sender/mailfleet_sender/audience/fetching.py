"""A file of recipients from a URL: whoever writes a campaign must not reach through the planner what lies behind it.

So the address is judged that is really connected to, after resolution and after each redirect; private, loopback,
link-local and metadata addresses are refused unless the installation allows their network.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import socket
import ssl
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import SplitResult, urljoin, urlsplit

from mailfleet_sender.contract.accounts import ReportReason
from mailfleet_sender.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mailfleet_sender.contract.campaign import CsvUrl
    from mailfleet_sender.settings import Network

    Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

FILE_OCTETS = 4 * 1024**3
"""The largest file: some 40 million recipients."""
SILENCE_SECONDS = 30.0
"""How long the server may say nothing."""
WHOLE_SECONDS = 3600.0
"""How long all of it may take."""
REDIRECTS = 5
_REDIRECTING = frozenset({301, 302, 303, 307, 308})
_HELD_BACK = (ipaddress.ip_network("168.63.129.16/32"), ipaddress.ip_network("192.0.0.0/24"))
"""Public by their numbers, but inside of a cloud: what Azure and Oracle tell their machines about themselves."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_WHAT = "recipients.csv.url"


class Fetched:
    """The octets of one answer, counted and hashed as they pass."""

    def __init__(self, response: http.client.HTTPResponse, host: str, sha256: str) -> None:
        self._response, self._host, self._wanted = response, host, sha256
        self._hash = hashlib.sha256()
        self._octets = 0
        self._until = time.monotonic() + WHOLE_SECONDS

    def readline(self, limit: int, /) -> bytes:
        """The next line; when it is the last, the checksum is compared.

        Raises:
            PlanError: SourceUnavailable, SourceRefused.
        """
        try:
            line = self._response.readline(limit)
        except (OSError, http.client.HTTPException) as error:
            raise unavailable(f"{self._host} broke off: {_words(error)}") from None
        self._octets += len(line)
        self._hash.update(line)
        if self._octets > FILE_OCTETS:
            raise refused(f"the file is larger than {FILE_OCTETS} octets")
        if time.monotonic() > self._until:
            raise unavailable(f"{self._host} took longer than {WHOLE_SECONDS:.0f} s")
        if not line:
            self._end()
        return line

    def _end(self) -> None:
        if self._response.length:
            raise unavailable(f"{self._host} broke off after {self._octets} octets")
        if self._hash.hexdigest() != self._wanted:
            raise refused(
                f"the file's SHA-256 is {self._hash.hexdigest()}, not what sha256 says: fetch it, look at it, and "
                "write the checksum of the right one"
            )


@contextmanager
def fetched(url: CsvUrl, allowed: Sequence[Network]) -> Iterator[Fetched]:
    """Open the file; nothing of it is kept here.

    Args:
        url: of the campaign.
        allowed: networks that may be reached though they are private, and without TLS.

    Raises:
        PlanError: SourceUnavailable (another pod may have better luck), SourceRefused (as it stands, never).
    """
    connection, response, host = _follow(url.href, allowed)
    try:
        yield Fetched(response, host, url.sha256.lower())
    finally:
        response.close()
        connection.close()


def forbidden(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether it must not be connected to: anything but the public internet and the networks allowed."""
    meant = _meant(address)
    if _in_any(meant, allowed):
        return False
    return not meant.is_global or meant.is_multicast or meant.is_reserved or _in_any(meant, _HELD_BACK)


def unavailable(what: str) -> PlanError:
    """Something that passes by itself, or is mended outside."""
    return PlanError(ReportReason.SOURCE_UNAVAILABLE, f"{_WHAT}: {what}; the plan is tried again")


def refused(what: str) -> PlanError:
    """Something that the campaign, the file or the installation must be changed for."""
    return PlanError(ReportReason.SOURCE_REFUSED, f"{_WHAT}: {what}")


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, if it does (mapped, 6to4, NAT64); else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _in_any(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _follow(href: str, allowed: Sequence[Network]) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse, str]:
    for _ in range(REDIRECTS + 1):
        parts = _split(href)
        connection = _connection(parts, allowed)
        try:
            response = _ask(connection, parts)
            target = _target(href, response)
            if target is None:
                _check(response, parts.hostname or "")
                return connection, response, parts.hostname or ""
        except BaseException:
            connection.close()
            raise
        connection.close()
        href = target
    raise refused(f"more than {REDIRECTS} redirects")


def _target(href: str, response: http.client.HTTPResponse) -> str | None:
    """Where a redirect leads; None: it is none."""
    location = response.headers.get("Location")
    if response.status not in _REDIRECTING or not location:
        return None
    try:
        target = urljoin(href, location)
    except ValueError:
        raise refused("a redirect leads to what is no URL") from None
    if href.lower().startswith("https:") and not target.lower().startswith("https:"):
        raise refused("a redirect leads from https to another scheme")
    return target


def _check(response: http.client.HTTPResponse, host: str) -> None:
    if response.status != http.client.OK:
        raise unavailable(f"{host} answers {response.status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise refused(f"{host} sends it compressed though asked not to: name the plain file")


def _split(href: str) -> SplitResult:
    try:
        parts = urlsplit(href)
        _ = parts.port
    except ValueError:
        raise refused("a URL on the way cannot be read") from None
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise refused(f"the scheme {parts.scheme[:20]!r} cannot be fetched: use https")
    if parts.username is not None:
        raise refused("a user name or password in a URL would be readable by all: use a signed URL, or a volume")
    return parts


def _connection(parts: SplitResult, allowed: Sequence[Network]) -> http.client.HTTPConnection:
    plain = parts.scheme == "http"
    port = parts.port or (http.client.HTTP_PORT if plain else http.client.HTTPS_PORT)
    raw = _reach(parts.hostname or "", port, allowed, plain=plain)
    connection = http.client.HTTPConnection(parts.hostname or "", port, timeout=SILENCE_SECONDS)
    try:
        if not plain:
            raw = ssl.create_default_context().wrap_socket(raw, server_hostname=parts.hostname)
    except OSError as error:
        raw.close()
        raise unavailable(f"{parts.hostname}: no TLS: {_words(error)}") from None
    connection.sock = raw
    return connection


def _reach(host: str, port: int, allowed: Sequence[Network], *, plain: bool) -> socket.socket:
    """Connect to the first address of a host that may be reached and answers."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise unavailable(f"{host} cannot be resolved: {_words(error)}") from None
    trouble: OSError | None = None
    barred = True
    for family, kind, protocol, _, place in found:
        if not _may(str(place[0]), allowed, plain=plain):
            continue
        barred = False
        raw = socket.socket(family, kind, protocol)
        try:
            raw.settimeout(SILENCE_SECONDS)
            raw.connect(place)
            if _may(str(raw.getpeername()[0]), allowed, plain=plain):
                return raw
        except OSError as error:
            trouble = error
        raw.close()
    if barred:
        why = "is not public, or is asked without TLS" if plain else "is a private, loopback or link-local address"
        raise refused(
            f"{host} {why}: the chart's value recipients.allowedNetworks names networks from which files may be fetched"
        )
    raise unavailable(f"{host} cannot be reached: {_words(trouble) if trouble else 'it is refused'}")


def _may(text: str, allowed: Sequence[Network], *, plain: bool) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if plain:  # without TLS only where the installation says that the network is its own
        return _in_any(_meant(address), allowed)
    return not forbidden(address, allowed)


def _ask(connection: http.client.HTTPConnection, parts: SplitResult) -> http.client.HTTPResponse:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("GET", target, headers={"Accept-Encoding": "identity", "User-Agent": "mailfleet"})
        return connection.getresponse()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise unavailable(f"{parts.hostname} does not answer: {_words(error)}") from None


def _words(error: Exception) -> str:
    """What went wrong, without a URL."""
    return str(getattr(error, "strerror", None) or getattr(error, "reason", None) or type(error).__name__)[:60]
