"""The words of the ledger that both rooms use: run states, counters, totals, reports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class RunState(StrEnum):
    """Where a run stands. Planning <-> Planned by edits; Open from the first claim on; the rest is final,
    except that Complete may be opened again by a retry of failed recipients."""

    PLANNING = "Planning"
    PLANNED = "Planned"
    OPEN = "Open"
    COMPLETE = "Complete"
    CANCELLED = "Cancelled"
    FAILED = "Failed"
    SUPERSEDED = "Superseded"


class EndReason(StrEnum):
    """Why a run was ended as Failed: the campaign's own schedule said so."""

    END_TIME_REACHED = "EndTimeReached"
    STARTING_DEADLINE_EXCEEDED = "StartingDeadlineExceeded"


class PauseReason(StrEnum):
    """What pauses a run until a person says that the cause is mended."""

    BRAKE_APPLIED = "BrakeApplied"
    SENDER_FAULT = "SenderFault"


class WaveKind(StrEnum):
    """Why a list of pages is being sent."""

    CANARY = "Canary"
    MAIN = "Main"
    RETRY = "Retry"
    REPAIR = "Repair"


class OutcomeKind(StrEnum):
    """What became of one recipient."""

    SENT = "sent"
    FAILED = "failed"
    SUPPRESSED = "suppressed"
    SKIPPED = "skipped"
    UNCERTAIN = "uncertain"
    CANCELLED = "cancelled"
    DEFERRED = "deferred"


@dataclass(frozen=True, slots=True)
class Totals:
    """One run's recipients, each term counted for itself in one snapshot of the ledger."""

    planned: int = 0
    sent: int = 0
    failed: int = 0
    suppressed: int = 0
    skipped: int = 0
    uncertain: int = 0
    cancelled: int = 0
    deferred: int = 0
    remaining: int = 0

    @property
    def adds_up(self) -> bool:
        """The promise: planned = the sum of all others."""
        return self.planned == (
            self.sent
            + self.failed
            + self.suppressed
            + self.skipped
            + self.uncertain
            + self.cancelled
            + self.deferred
            + self.remaining
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """Why recipients failed.

    Attributes:
        code: the enhanced status code of the relay's reply, else its basic one, else a local one (RowTooLarge).
        count: of the recipients whose verdict it is.
        sample: one of the replies, addresses replaced; "" if none is kept.
    """

    code: str
    count: int
    sample: str


class ReportReason(StrEnum):
    """Why a planner or a sender cannot go on. The operator turns these into conditions."""

    # a planner
    TABLE_NOT_FOUND = "TableNotFound"
    COLUMN_NOT_FOUND = "ColumnNotFound"
    KEY_TYPE_UNSUPPORTED = "KeyTypeUnsupported"
    KEY_NULL = "KeyNull"
    KEY_NOT_UNIQUE = "KeyNotUnique"
    KEY_NOT_UTF8 = "KeyNotUtf8"
    MATCH_INVALID = "MatchInvalid"
    TEMPLATE_INVALID = "TemplateInvalid"
    ADDRESS_INVALID = "AddressInvalid"
    CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound"
    ATTACHMENT_INVALID = "AttachmentInvalid"
    CSV_INVALID = "CsvInvalid"
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    SOURCE_REFUSED = "SourceRefused"
    DATABASE_UNAVAILABLE = "DatabaseUnavailable"
    DATABASE_REFUSED = "DatabaseRefused"
    # a sender
    RELAY_UNAVAILABLE = "RelayUnavailable"
    RELAY_THROTTLING = "RelayThrottling"
    SENDER_FAULT = "SenderFault"
    LIMITER_UNAVAILABLE = "LimiterUnavailable"
    LEDGER_REWOUND = "LedgerRewound"
    # both
    INTERNAL_ERROR = "InternalError"


@dataclass(frozen=True, slots=True)
class Report:
    """What a planner or sender says about itself that no counter shows. One row a reporter, replaced in place.

    `message`: <= 256 bytes, for people: what is wrong and the remedy; no address, no secret.
    """

    run: int
    reporter: str
    reason: ReportReason
    message: str
    at: datetime
