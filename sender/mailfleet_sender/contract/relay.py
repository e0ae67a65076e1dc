"""One relay as the ledger keeps it: where mail goes, and the limits that hold there.

The row is the truth: senders read their connection settings from it when they connect, and any of
them may seed Redis from it again when Redis comes back empty.
"""

from __future__ import annotations

from enum import StrEnum
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from .model import Model
from .rate import PLAIN_PATTERN, Rate


class TlsMode(StrEnum):
    """How the connection is encrypted: STARTTLS (RFC 3207), from the first byte, or not at all."""

    START_TLS = "StartTLS"
    IMPLICIT = "Implicit"
    NONE = "None"


class Verification(StrEnum):
    """Whether the relay's certificate is checked."""

    FULL = "Full"
    NONE = "None"


class Tls(Model):
    """Encryption of the connection. The CA itself arrives as a file, see `contract.environment`."""

    mode: TlsMode = TlsMode.START_TLS
    minimum_version: str = Field(default="1.2", pattern=r"^1[.][23]$")
    verification: Verification = Verification.FULL


class QuotaWindow(StrEnum):
    """Over which time a quota is counted: the last 24 hours at any moment, or a calendar day."""

    ROLLING_24H = "Rolling24h"
    DAY = "Day"


class Quota(Model):
    """Messages that the relay takes in a window; `time_zone` (IANA name) says when a day begins, UTC if left out."""

    messages: int = Field(ge=1, le=1_000_000_000)
    window: QuotaWindow = QuotaWindow.ROLLING_24H
    time_zone: str | None = None

    @model_validator(mode="after")
    def _is_usable(self) -> Quota:
        if self.time_zone is not None and self.window is not QuotaWindow.DAY:
            raise ValueError("quota.timeZone belongs to window Day: leave it out, or set window to Day")
        try:
            ZoneInfo(self.time_zone or "UTC")
        except (KeyError, ValueError, OSError):
            raise ValueError(
                f"quota.timeZone: {self.time_zone!r} is no time zone: write an IANA name, as Europe/Berlin"
            ) from None
        return self


class DomainLimit(Model):
    """A rate that holds for recipients at one domain, within the relay's own."""

    name: str
    rate: str

    @field_validator("rate")
    @classmethod
    def _is_rate(cls, text: str) -> str:
        if not PLAIN_PATTERN.match(text):
            raise ValueError(f"{text!r} is no rate of a domain: write N/s, N/m, N/h or N/d, for example 5/s")
        return text


class Limits(Model):
    """What the relay allows, for the whole fleet."""

    account: str | None = None
    rate: str
    quota: Quota | None = None
    domains: tuple[DomainLimit, ...] = ()

    @field_validator("rate")
    @classmethod
    def _is_rate(cls, text: str) -> str:
        Rate.parse(text)
        return text


class Connections(Model):
    """Connections: `max` of the whole fleet (None: any number), `per_sender` of one sender."""

    max: int | None = Field(default=None, ge=1, le=100_000)
    per_sender: int = Field(default=10, ge=1, le=1000)
    messages_per_connection: int = Field(default=100, ge=1)
    idle_timeout_seconds: int = Field(default=30, ge=1)


class Pipelining(StrEnum):
    """How much may be said to the relay before it answers: what it offers (Auto), or at most this."""

    AUTO = "Auto"
    CHUNKING = "Chunking"
    PIPELINED = "Pipelined"
    GROUPED = "Grouped"
    SEQUENTIAL = "Sequential"


class Relay(Model):
    """An SMTP relay. `namespace` and `name` are its identity; `account` defaults to them."""

    namespace: str
    name: str
    host: str
    port: int = Field(default=587, ge=1, le=65_535)
    tls: Tls = Tls()
    limits: Limits
    connections: Connections = Connections()
    pipelining: Pipelining = Pipelining.AUTO
    hello_name: str | None = None
    authenticate: bool = False

    @property
    def account(self) -> str:
        """The key of the limits: relays with one account share them."""
        return self.limits.account or f"{self.namespace}/{self.name}"

    @property
    def rate(self) -> Rate:
        """The limit as a value."""
        return Rate.parse(self.limits.rate)

    @property
    def domain_rates(self) -> dict[str, Rate]:
        """The limits of single domains, by the domain's name in lower case."""
        return {domain.name.lower(): Rate.parse(domain.rate) for domain in self.limits.domains}
