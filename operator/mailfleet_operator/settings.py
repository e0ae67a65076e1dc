"""The operator's configuration, read once at the door."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TYPE_CHECKING

from mailfleet_sender.contract import environment

from . import boundaries
from .errors import SettingsError
from .manifests import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

SENDER_IMAGE = "MAILFLEET_SENDER_IMAGE"
SENDER_SECRET = "MAILFLEET_SENDER_SECRET"  # noqa: S105 - a variable's name
PULL_POLICY = "MAILFLEET_SENDER_PULL_POLICY"
TICK_SECONDS = "MAILFLEET_TICK_SECONDS"
STATUS_SECONDS = "MAILFLEET_STATUS_SECONDS"
HEALTH_PORT = "MAILFLEET_HEALTH_PORT"
LOG_LEVEL = "MAILFLEET_LOG_LEVEL"
NAMESPACES = "MAILFLEET_NAMESPACES"
RETENTION_MONTHS = "MAILFLEET_RETENTION_MONTHS"
SHARED_ACCOUNTS = "MAILFLEET_SHARED_ACCOUNTS"
MAX_SENDERS = "MAILFLEET_MAX_SENDERS"
REQUIRE_START_TIME = "MAILFLEET_REQUIRE_START_TIME"
DIE_AT = "MAILFLEET_TEST_DIE_AT"
DIED = "MAILFLEET_TEST_DIED"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator is told from outside. URLs hold passwords and are never shown.

    Attributes:
        tick_seconds: between two looks at a campaign that is not over.
        status_seconds: at least between two writes of a status whose conditions did not change.
        retention_months: whole months for which the ledger keeps who got what; totals stay for ever.
        shared_accounts: accounts of relays that hold in all namespaces; others belong to their namespace.
        namespaces: those served; empty for all of the cluster.
        max_senders: of one campaign, whatever its spec says; None: no such bound.
        require_start_time: campaigns without startTime and startingDeadlineSeconds are not planned.
        die_at: for tests alone: moments at which the operator ends, see `boundaries`; "all" names all of them.
        died_folder: where it notes that it did.
        metrics_port: where /metrics is served; None: it is not.
    """

    ledger_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    image: Image
    tick_seconds: float = 2.0
    status_seconds: float = 5.0
    health_port: int = 8080
    log_level: str = "INFO"
    retention_months: int = 12
    namespaces: tuple[str, ...] = ()
    shared_accounts: frozenset[str] = frozenset()
    max_senders: int | None = None
    require_start_time: bool = False
    die_at: tuple[str, ...] = ()
    died_folder: str = ""
    metrics_port: int | None = None

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Settings:
        """Read them from the environment.

        Raises:
            SettingsError: one is missing or unusable; the message names it.
        """

        def text(name: str, default: str | None = None) -> str:
            if value := variables.get(name) or default:
                return value
            raise SettingsError(f"{name} is not set: the chart sets it")

        def number(name: str, default: float) -> float:
            try:
                value = float(variables.get(name) or default)
            except ValueError:
                raise SettingsError(f"{name} must be a number, not {variables[name]!r}") from None
            if value <= 0:
                raise SettingsError(f"{name} must be above 0")
            return value

        return cls(
            ledger_url=text(environment.LEDGER_URL),
            redis_url=text(environment.REDIS_URL),
            image=Image(
                text(SENDER_IMAGE),
                text(PULL_POLICY, "IfNotPresent"),
                text(SENDER_SECRET, "mailfleet"),
                _networks(variables.get(environment.URL_NETWORKS) or ""),
            ),
            tick_seconds=number(TICK_SECONDS, 2),
            status_seconds=number(STATUS_SECONDS, 5),
            health_port=int(number(HEALTH_PORT, 8080)),
            log_level=text(LOG_LEVEL, "INFO").upper(),
            retention_months=max(1, int(number(RETENTION_MONTHS, 12))),
            metrics_port=int(number(environment.METRICS_PORT, 1)) if variables.get(environment.METRICS_PORT) else None,
            namespaces=tuple(filter(None, (variables.get(NAMESPACES) or "").split(","))),
            shared_accounts=frozenset(filter(None, (variables.get(SHARED_ACCOUNTS) or "").split(","))),
            max_senders=max(1, int(number(MAX_SENDERS, 1))) if variables.get(MAX_SENDERS) else None,
            require_start_time=variables.get(REQUIRE_START_TIME) == "true",
            die_at=_boundaries(variables.get(DIE_AT) or ""),
            died_folder=text(DIED, "-"),
        )


def _boundaries(names: str) -> tuple[str, ...]:
    if names == "all":
        return boundaries.NAMES
    wanted = tuple(filter(None, names.split(",")))
    if unknown := set(wanted) - set(boundaries.NAMES):
        raise SettingsError(f"{DIE_AT} names what is no boundary: {', '.join(sorted(unknown))}")
    return wanted


def _networks(text: str) -> str:
    """Checked here: a planner that cannot read them would fail each campaign that has nothing to do with them."""
    try:
        return ",".join(str(ip_network(part.strip())) for part in text.split(",") if part.strip())
    except ValueError:
        raise SettingsError(
            f"{environment.URL_NETWORKS} must be networks as 10.0.0.0/8, separated by commas: the chart's value "
            "recipients.allowedNetworks"
        ) from None
