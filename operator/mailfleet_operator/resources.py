"""The specs of the custom resources as the operator reads them from manifests. Pure.

What a run sends (audience, message, policy) is the contract's `Campaign`; here is the rest: where its
Secrets are, how many senders may work, and whether it is suspended.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, Field, field_validator

from mailfleet_sender.contract.campaign import CanaryStep
from mailfleet_sender.contract.model import Model
from mailfleet_sender.contract.relay import Connections, Limits, Pipelining, Relay, Tls

if TYPE_CHECKING:
    from datetime import date

GROUP = "mailfleet.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]|24:00")


def _minute(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


class Reference(Model):
    """The name of an object in the same namespace."""

    name: str


class KeyReference(Model):
    """One key of a Secret in the same namespace, as in core/v1 `secretKeyRef`."""

    name: str
    key: str


class Senders(Model):
    """How many sender pods, and where they may run (fields as in core/v1 PodSpec)."""

    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=20, ge=1)
    resources: dict[str, Any] | None = None
    node_selector: dict[str, str] | None = None
    tolerations: tuple[dict[str, Any], ...] | None = None
    priority_class_name: str | None = None


class TableSource(Model):
    """Where the recipients' database is; the rest of the table is the contract's."""

    database_secret_ref: KeyReference


class RecipientsSource(Model):
    """The source of the audience; a file's is the contract's alone."""

    table: TableSource | None = None


class Day(StrEnum):
    """A day of the week."""

    MON = "Mon"
    TUE = "Tue"
    WED = "Wed"
    THU = "Thu"
    FRI = "Fri"
    SAT = "Sat"
    SUN = "Sun"


WEEK = tuple(Day)


class Window(Model):
    """A time of day in which mail may be sent, on the days on which it begins (none named: every day)."""

    days: tuple[Day, ...] = ()
    from_: str = Field(alias="from")
    to: str

    @field_validator("from_", "to")
    @classmethod
    def _is_a_time(cls, text: str) -> str:
        if not TIME_OF_DAY.fullmatch(text):
            raise ValueError(f"{text!r} is no time of day: write 08:00")
        return text

    @property
    def first_minute(self) -> int:
        """Its first minute of the day."""
        return _minute(self.from_)

    @property
    def last_minute(self) -> int:
        """The minute of the day that it no longer holds; not later than the first: on the next day."""
        return _minute(self.to)

    def includes(self, day: date) -> bool:
        """Whether it begins on that day."""
        return not self.days or WEEK[day.weekday()] in self.days


class Schedule(Model):
    """When mail may be sent; `time_zone` (IANA name) says whose clocks the windows mean."""

    start_time: AwareDatetime | None = None
    starting_deadline_seconds: int | None = Field(default=None, ge=1)
    end_time: AwareDatetime | None = None
    windows: tuple[Window, ...] = ()
    time_zone: str = "UTC"

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{name!r} is no time zone: write an IANA name, as Europe/Berlin") from None
        return name


class Approval(StrEnum):
    """Whether a canary step that is within its bounds passes by itself."""

    AUTOMATIC = "Automatic"
    MANUAL = "Manual"


class Canary(Model):
    """How the steps are judged, each for itself, and which were approved."""

    steps: tuple[CanaryStep, ...]
    max_failed_percent: int = Field(default=5, ge=0, le=100)
    max_deferred_percent: int = Field(default=20, ge=0, le=100)
    pause_seconds: int = Field(default=600, ge=0)
    approval: Approval = Approval.AUTOMATIC
    approved_step: int | None = Field(default=None, ge=1)


class Brake(Model):
    """When a campaign pauses by itself: more than `max_failed_percent` of at least `minimum_sample` mails failed."""

    max_failed_percent: int = Field(default=10, ge=0, le=100)
    minimum_sample: int = Field(default=200, ge=1)


class RetryFailed(Model):
    """Who is sent to once more when `generation` is raised: those that failed with one of `codes`."""

    generation: int = Field(ge=1)
    codes: tuple[str, ...]


class CampaignSpec(Model):
    """The parts of an EmailCampaign's spec that steer the operator."""

    run_id: str = "1"
    suspend: bool = False
    cancel: bool = False
    relay_ref: Reference
    weight: int = 100
    recipients: RecipientsSource
    schedule: Schedule = Schedule()
    canary: Canary | None = None
    brake: Brake | None = None
    resume_time: AwareDatetime | None = None
    senders: Senders = Senders()
    retry_failed: RetryFailed | None = None
    range_size: int | None = None
    ttl_seconds_after_finished: int = 86_400

    @property
    def database(self) -> KeyReference | None:
        """The Secret key with the URL of the recipients' database; None: they are a file."""
        return self.recipients.table.database_secret_ref if self.recipients.table else None


class RelayTls(Tls):
    """Encryption, and the Secret key with the PEM bundle of the relay's CA."""

    ca_secret_ref: KeyReference | None = None


class RelayAuth(Model):
    """The Secret with the keys `username` and `password`."""

    secret_ref: Reference


class RelaySpec(Model):
    """An EmailRelay's spec."""

    host: str
    port: int = Field(default=587, ge=1, le=65_535)
    tls: RelayTls = RelayTls()
    auth: RelayAuth | None = None
    limits: Limits
    connections: Connections = Connections()
    pipelining: Pipelining = Pipelining.AUTO
    hello_name: str | None = None

    def contract(self, namespace: str, name: str) -> Relay:
        """The relay as senders read it: without Secrets, which reach them through their pods."""
        return Relay(
            namespace=namespace,
            name=name,
            host=self.host,
            port=self.port,
            tls=Tls(mode=self.tls.mode, minimum_version=self.tls.minimum_version, verification=self.tls.verification),
            limits=self.limits,
            connections=self.connections,
            pipelining=self.pipelining,
            hello_name=self.hello_name,
            authenticate=self.auth is not None,
        )
