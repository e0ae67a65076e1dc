"""The sender's configuration, read once at the door: environment variables that the operator's Jobs set."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from .contract import environment
from .errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

Network: TypeAlias = IPv4Network | IPv6Network
TIMING = {
    "lease_seconds": ("MAILFLEET_LEASE_SECONDS", 15.0),
    "margin_seconds": ("MAILFLEET_MARGIN_SECONDS", 5.0),
    "idle_seconds": ("MAILFLEET_IDLE_SECONDS", 5.0),
    "statement_seconds": ("MAILFLEET_STATEMENT_SECONDS", 30.0),
    "lock_seconds": ("MAILFLEET_LOCK_SECONDS", 10.0),
}
"""Fields of `ledger.Timing`, the variables that change them, and their defaults: one setting for an installation."""
SMTP_TIMEOUT_SECONDS = "MAILFLEET_SMTP_TIMEOUT_SECONDS"
"""An upper limit of every step's time-out (RFC 5321 4.5.3.2 allows minutes); for tests and relays near by."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables of this process, with errors that name the variable and who sets it."""

    variables: Mapping[str, str]

    def text(self, name: str) -> str:
        """A variable that must be there.

        Raises:
            SettingsError: it is missing or empty.
        """
        if not (value := self.variables.get(name, "")):
            raise SettingsError(f"{name} is not set: the operator's Jobs set it; see docs/architecture.md")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A number.

        Raises:
            SettingsError: missing without a default, or no number.
        """
        if default is not None and not self.variables.get(name):
            return default
        value = self.text(name)
        try:
            return float(value)
        except ValueError:
            raise SettingsError(f"{name} is {value!r}: it must be a number") from None


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """What the verb `plan` needs."""

    ledger_url: str = field(repr=False)
    database_url: str | None = field(repr=False)
    run: int
    reporter: str
    config_folder: Path = Path(environment.CONFIG_MAPS)
    volume_folder: Path = Path(environment.VOLUME)
    networks: tuple[Network, ...] = ()

    @classmethod
    def read(cls, env: Environment) -> PlanSettings:
        """Read them from the environment (SettingsError names what is wrong)."""
        return cls(
            ledger_url=env.text(environment.LEDGER_URL),
            database_url=env.variables.get(environment.DATABASE_URL) or None,
            run=int(env.number(environment.RUN)),
            reporter=env.text(environment.POD_NAME),
            config_folder=Path(env.variables.get(environment.CONFIG_FOLDER) or environment.CONFIG_MAPS),
            volume_folder=Path(env.variables.get(environment.VOLUME_FOLDER) or environment.VOLUME),
            networks=_networks(env.variables.get(environment.URL_NETWORKS) or ""),
        )


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    """What opens a connection to a relay besides the relay's own settings.

    Attributes:
        username, password: for AUTH.
        ca_file: a PEM bundle that replaces the system's certificates.
        timeout_seconds: an upper limit of every step's time-out.
    """

    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    timeout_seconds: float = math.inf

    @classmethod
    def read(cls, env: Environment) -> SmtpSettings:
        """Read them from the environment (SettingsError names what is wrong)."""
        ca_file = env.variables.get(environment.SMTP_CA_FILE)
        return cls(
            username=env.variables.get(environment.SMTP_USERNAME) or None,
            password=env.variables.get(environment.SMTP_PASSWORD) or None,
            ca_file=Path(ca_file) if ca_file else None,
            timeout_seconds=env.number(SMTP_TIMEOUT_SECONDS, math.inf),
        )


@dataclass(frozen=True, slots=True)
class PreflightSettings:
    """What the verb `preflight` needs.

    Attributes:
        made_for: see `environment.PREFLIGHT_FOR`; None: what is found is told, and not written down.
    """

    ledger_url: str = field(repr=False)
    smtp: SmtpSettings
    relay_namespace: str
    relay_name: str
    reporter: str
    made_for: str | None

    @classmethod
    def read(cls, env: Environment, relay: str | None = None) -> PreflightSettings:
        """Read them from the environment (SettingsError names what is wrong).

        Args:
            env: of the process.
            relay: namespace/name, if a person named one.
        """
        namespace, name = _relay_name(relay or env.text(environment.RELAY))
        return cls(
            ledger_url=env.text(environment.LEDGER_URL),
            smtp=SmtpSettings.read(env),
            relay_namespace=namespace,
            relay_name=name,
            reporter=env.variables.get(environment.POD_NAME) or "somebody",
            made_for=env.variables.get(environment.PREFLIGHT_FOR) or None,
        )


@dataclass(frozen=True, slots=True)
class SendSettings:
    """What the verb `send` needs. Durations in seconds."""

    ledger_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    database_url: str | None = field(repr=False)
    smtp: SmtpSettings
    run: int
    wave: int
    index: int
    relay_namespace: str
    relay_name: str
    pod: str
    grace_seconds: float
    timing: dict[str, float]
    metrics_port: int | None = None

    @classmethod
    def read(cls, env: Environment) -> SendSettings:
        """Read them from the environment (SettingsError names what is wrong)."""
        namespace, name = _relay_name(env.text(environment.RELAY))
        return cls(
            ledger_url=env.text(environment.LEDGER_URL),
            redis_url=env.text(environment.REDIS_URL),
            database_url=env.variables.get(environment.DATABASE_URL) or None,
            smtp=SmtpSettings.read(env),
            run=int(env.number(environment.RUN)),
            wave=int(env.number(environment.WAVE)),
            index=int(env.number(environment.INDEX)),
            relay_namespace=namespace,
            relay_name=name,
            pod=env.text(environment.POD_NAME),
            grace_seconds=env.number(environment.GRACE_SECONDS, 60),
            timing=_timing(env),
            metrics_port=int(env.number(environment.METRICS_PORT, 0)) or None,
        )


def _relay_name(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not slash:
        raise SettingsError(f"a relay is named NAMESPACE/NAME ({environment.RELAY}), not {text!r}")
    return namespace, name


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError:
        raise SettingsError(f"{environment.URL_NETWORKS} must be networks as 10.0.0.0/8, separated by commas") from None


def _timing(env: Environment) -> dict[str, float]:
    timing = {name: env.number(variable, default) for name, (variable, default) in TIMING.items()}
    lease, margin = timing["lease_seconds"], timing["margin_seconds"]
    if not 0 < margin < lease:
        raise SettingsError(
            f"MAILFLEET_MARGIN_SECONDS is {margin:g}: it must be above 0 and below MAILFLEET_LEASE_SECONDS ({lease:g})"
        )
    return timing
