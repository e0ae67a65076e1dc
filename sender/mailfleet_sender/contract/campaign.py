"""One campaign as the ledger keeps it: who gets the mail, and what it says.

The operator writes the snapshot into the ledger when a run is made; planner and senders read it
there, so that a run sends what was planned whatever happens to the resource afterwards.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Any

from pydantic import Field

from .model import Model

SNAPSHOT_VERSION = 1
DOUBLINGS = 22
"""A second, doubled so often, is longer than the longest `maxAgeSeconds`."""
TEMPLATE_KEYS = ("subject", "text", "html")
"""Of these a template's ConfigMap holds `subject`, and `text`, `html` or both."""


class MatchOperator(StrEnum):
    """How a column is compared with the values of a match."""

    EQUALS = "Equals"
    NOT_EQUALS = "NotEquals"
    IN = "In"
    NOT_IN = "NotIn"
    IS_NULL = "IsNull"
    IS_NOT_NULL = "IsNotNull"


class OnUncertain(StrEnum):
    """What becomes of a recipient whose mail may or may not have been accepted."""

    SKIP = "Skip"
    RESEND = "Resend"


class DuplicateAddresses(StrEnum):
    """What becomes of a second row with the same address."""

    SKIP = "Skip"
    SEND = "Send"


class Match(Model):
    """A structured filter: never raw SQL."""

    column: str
    operator: MatchOperator
    values: tuple[str, ...] = ()


class Table(Model):
    """A table or view of the recipients' database, and which of its rows are meant."""

    schema_: str = Field(default="public", alias="schema")
    name: str
    key_column: str = "id"
    email_column: str = "email"
    match: tuple[Match, ...] = ()


class VolumeFile(Model):
    """A file of a volume in the campaign's namespace."""

    claim_name: str
    path: str


class CsvUrl(Model):
    """A file that is fetched, and the checksum of what it must hold."""

    href: str
    sha256: str


class ConfigMapKey(Model):
    """One key of a ConfigMap in the campaign's namespace, as in core/v1 `configMapKeyRef`."""

    name: str
    key: str


class Csv(Model):
    """A CSV file (RFC 4180) whose first line names the columns. Exactly one source.

    `key_column` None: a recipient's key is the number of the line on which its row begins.
    """

    config_map_key_ref: ConfigMapKey | None = None
    persistent_volume_claim: VolumeFile | None = None
    url: CsvUrl | None = None
    key_column: str | None = None
    email_column: str = "email"
    match: tuple[Match, ...] = ()


class AddressTable(Model):
    """A table or view of the recipients' database, of which the addresses alone are read."""

    schema_: str = Field(default="public", alias="schema")
    name: str
    email_column: str = "email"


class Exclusion(Model):
    """Addresses that get no mail. Exactly one source."""

    table: AddressTable


class Recipients(Model):
    """The audience. Exactly one source."""

    table: Table | None = None
    csv: Csv | None = None
    exclude: tuple[Exclusion, ...] = ()
    duplicate_addresses: DuplicateAddresses = DuplicateAddresses.SKIP


class Unsubscribe(Model):
    """List-Unsubscribe (RFC 2369) and List-Unsubscribe-Post (RFC 8058)."""

    url: str | None = None
    mailto: str | None = None
    one_click: bool = True


class TemplateReference(Model):
    """A ConfigMap whose keys `TEMPLATE_KEYS` stand for the fields of the same names."""

    name: str


class Attachment(Model):
    """A file that every mail carries: attached, or with `content_id` shown within the HTML (RFC 2392)."""

    name: str
    config_map_key_ref: ConfigMapKey
    content_type: str | None = None
    content_id: str | None = None


class Message(Model):
    """The mail: every text field is a Jinja template over the recipient's columns."""

    from_: str = Field(alias="from")
    reply_to: str | None = None
    envelope_from: str | None = None
    subject: str | None = None
    text: str | None = None
    html: str | None = None
    template_ref: TemplateReference | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    attachments: tuple[Attachment, ...] = ()
    unsubscribe: Unsubscribe | None = None


class Retry(Model):
    """When a deferred recipient is tried again: each wait is twice as long as the one before, up to a bound; and
    until when."""

    initial_delay_seconds: int = 600
    max_delay_seconds: int = 14_400
    max_age_seconds: int = 259_200

    def delay_seconds(self, attempt: int) -> int:
        """The wait after an attempt (from 1). A bound below the first wait counts as the first wait."""
        doublings = min(max(0, attempt - 1), DOUBLINGS)
        return max(self.initial_delay_seconds, min(self.max_delay_seconds, self.initial_delay_seconds << doublings))


class CanaryStep(Model):
    """A part of the audience that is mailed before the rest: so many recipients, or a percentage. Exactly one."""

    recipients: int | None = None
    percent: int | None = None

    def wanted(self, audience: int) -> int:
        """How many that is of an audience; a percentage is rounded up."""
        return self.recipients or -(-audience * (self.percent or 0) // 100)


class Canary(Model):
    """The steps that go before the rest. When the next one may begin is the operator's to judge."""

    steps: tuple[CanaryStep, ...]

    def sizes(self, audience: int) -> tuple[int, ...]:
        """Recipients of each step of an audience; what is left of a small one is the last step, and none is empty."""
        sizes: list[int] = []
        for step in self.steps:
            if (size := min(step.wanted(audience), audience - sum(sizes))) > 0:
                sizes.append(size)
        return tuple(sizes)


class Campaign(Model):
    """The definition of a run: what identifies it for "the same runId with another audience or message"."""

    recipients: Recipients
    message: Message
    canary: Canary | None = None
    on_uncertain: OnUncertain = OnUncertain.SKIP
    retry: Retry = Retry()

    def config_maps(self) -> dict[str, list[str]]:
        """The ConfigMaps that are read when the run is planned, each with the keys wanted; in order of names."""
        wanted: dict[str, set[str]] = {}
        if self.message.template_ref:
            wanted[self.message.template_ref.name] = set(TEMPLATE_KEYS)
        references = [attachment.config_map_key_ref for attachment in self.message.attachments]
        if self.recipients.csv and self.recipients.csv.config_map_key_ref:
            references.append(self.recipients.csv.config_map_key_ref)
        for reference in references:
            wanted.setdefault(reference.name, set()).add(reference.key)
        return {name: sorted(keys) for name, keys in sorted(wanted.items())}

    def snapshot(self) -> bytes:
        """Canonical JSON: sorted, compact, without defaulted fields, with the form's version."""
        return _canonical(self.model_dump(mode="json", by_alias=True, exclude_defaults=True))

    def definition_hash(self) -> str:
        """Hex SHA-256 over audience, message and how the audience is cut: policy such as retry may change under one
        runId."""
        definition = self.model_dump(
            mode="json", by_alias=True, exclude_defaults=True, include={"recipients", "message", "canary"}
        )
        return hashlib.sha256(_canonical(definition)).hexdigest()

    @classmethod
    def from_snapshot(cls, body: bytes) -> Campaign:
        """Read what `snapshot` wrote.

        Raises:
            ValueError: the snapshot is of a newer form, or no snapshot.
        """
        data: dict[str, Any] = json.loads(body)
        if (version := data.get("version")) != SNAPSHOT_VERSION:
            raise ValueError(f"the campaign's snapshot has version {version}, this sender reads {SNAPSHOT_VERSION}")
        return cls.model_validate(data)


def _canonical(data: dict[str, Any]) -> bytes:
    form = {"version": SNAPSHOT_VERSION, **data}
    return json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
