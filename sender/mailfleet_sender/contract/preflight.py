"""What a preflight found out about a relay: words of the ledger that both rooms use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class RelayFault(StrEnum):
    """What is wrong with the way to a relay, in one word; the operator makes it the reason of Ready=False."""

    HOST_NOT_FOUND = "HostNotFound"
    CONNECTION_REFUSED = "ConnectionRefused"
    UNREACHABLE = "Unreachable"
    TIMEOUT = "Timeout"
    CONNECTION_CLOSED = "ConnectionClosed"
    NOT_SMTP = "NotSmtp"
    RELAY_REFUSES = "RelayRefuses"
    """It answers, and takes nobody, or not us."""
    START_TLS_NOT_OFFERED = "StartTlsNotOffered"
    TLS_FAILED = "TlsFailed"
    CERTIFICATE_INVALID = "CertificateInvalid"
    CA_INVALID = "CaInvalid"
    AUTH_NOT_OFFERED = "AuthNotOffered"
    CREDENTIALS_MISSING = "CredentialsMissing"
    CREDENTIALS_REFUSED = "CredentialsRefused"


@dataclass(frozen=True, slots=True)
class Preflight:
    """The newest preflight of a relay. One row a relay, replaced in place.

    Attributes:
        made_for: what the operator wanted to be tried, as it told the Job: settings and names of Secrets, hashed.
        reporter: the pod that tried.
        fault: None: mail may be sent.
        message: <= 256 bytes, for people: what was found, or what is wrong and the remedy; no address, no secret.
        capabilities: keywords of EHLO before and after TLS, in upper case.
        at: when, by the ledger's clock.
    """

    made_for: str
    reporter: str
    fault: RelayFault | None
    message: str
    capabilities: tuple[str, ...]
    at: datetime
