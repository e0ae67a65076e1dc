"""What can go wrong in the sender. Each error has two parents: this family and a built-in one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_sender.contract.accounts import ReportReason

if TYPE_CHECKING:
    from mailfleet_sender.contract.preflight import RelayFault


class SenderError(Exception):
    """Anything the sender raises on purpose."""


class SettingsError(SenderError, ValueError):
    """The process was started with a configuration that it cannot use."""


class NotThereError(SenderError, LookupError):
    """What a person asked a verb for is not there; the message says what is, or what to do."""


class PlanError(SenderError, RuntimeError):
    """The audience or the message cannot be used as they stand.

    Attributes:
        reason: what the operator makes a condition of.
        message: for people, <= 256 bytes: what is wrong and the remedy; no address, no secret.
    """

    def __init__(self, reason: ReportReason, message: str) -> None:
        self.reason = reason
        self.message = message.encode()[:256].decode(errors="ignore")
        super().__init__(self.message)


class AudienceUnavailable(PlanError, ConnectionError):  # noqa: N818 - a state of the world, as in conditions
    """The recipients' database cannot be read now; wait, and it may be mended without any change to the campaign.

    Attributes:
        REASONS: all reasons that it may have.
    """

    REASONS = (
        ReportReason.DATABASE_UNAVAILABLE,
        ReportReason.DATABASE_REFUSED,
        ReportReason.TABLE_NOT_FOUND,
        ReportReason.COLUMN_NOT_FOUND,
        ReportReason.KEY_TYPE_UNSUPPORTED,
        ReportReason.MATCH_INVALID,
    )


class ComposeError(SenderError, ValueError):
    """One recipient's mail cannot be made: that recipient's `failed`, with `code` as its local code.

    Attributes:
        code: a `message.LocalCode`.
        detail: for people; no value of the row.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code, self.detail = code, detail
        super().__init__(f"{code}: {detail}")


class RenderError(ComposeError):
    """A template or a header cannot be made from this row (ValueMissing, RenderFailed, ...TooLarge)."""


class AddressError(ComposeError):
    """An address that cannot be used (codes AddressInvalid, AddressNotAscii)."""


class RelayUnavailable(SenderError, ConnectionError):  # noqa: N818 - a state of the world, as in conditions
    """The relay cannot be reached, cannot be trusted, or takes no mail now; waits for it to be mended.

    Attributes:
        fault: which of these, where it is known.
    """

    def __init__(self, message: str, fault: RelayFault | None = None) -> None:
        super().__init__(message)
        self.fault = fault


class SenderFault(SenderError, PermissionError):  # noqa: N818 - the condition's own name
    """The relay refuses us, whoever the recipient is: the campaign stops, nobody is burned.

    Attributes:
        fault: why, if it did so before any mail.
    """

    def __init__(self, message: str, fault: RelayFault | None = None) -> None:
        super().__init__(message)
        self.fault = fault


class LedgerError(SenderError):
    """Anything that the ledger refuses or cannot do."""


class Fenced(LedgerError, RuntimeError):  # noqa: N818 - the protocol's own word
    """Another owner, or the operator, took the range over: leave late outcomes and end (os._exit(75))."""


class LedgerRewound(LedgerError, RuntimeError):  # noqa: N818 - the condition's own name
    """The ledger lost what it had committed (a restore, a fail-over without synchronous replication): send nothing."""


class LedgerUnavailable(LedgerError, ConnectionError):  # noqa: N818 - a state of the world, as in conditions
    """The ledger does not answer, or refuses to write just now."""


class PlanMismatch(LedgerError, ValueError):  # noqa: N818 - says what is wrong
    """The pages written under a plan are not what is to be published: a gap, a page that is not full, a wrong count."""


class PlanSuperseded(LedgerError, RuntimeError):  # noqa: N818 - says what is so
    """A newer plan has swept what this one had loaded: nothing is left to do for it."""


class LimiterUnavailable(SenderError, ConnectionError):  # noqa: N818 - a state of the world, as in conditions
    """Redis does not answer: nothing is sent until it does."""
