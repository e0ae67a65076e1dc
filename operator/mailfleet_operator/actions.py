"""What the operator can do, as values. Pure: `plan` makes them, `apply` does them.

Each may be done twice without harm; one that comes too late comes to nothing and is planned anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from mailfleet_operator.resources import Brake
    from mailfleet_operator.scaling import Memory
    from mailfleet_sender.contract.accounts import EndReason, PauseReason, RunState


@dataclass(frozen=True, slots=True)
class EnsureRun:
    """Make the run's row in the ledger, with the snapshot of the campaign."""


@dataclass(frozen=True, slots=True)
class AmendRun:
    """Write a changed policy (retry, onUncertain) into a run; audience and message stay."""

    run: int


@dataclass(frozen=True, slots=True)
class EditRun:
    """Put another definition into a run that has not started: it is planned anew."""

    run: int


@dataclass(frozen=True, slots=True)
class SupersedeRun:
    """Close an older open run of the same campaign; what it has not sent counts as cancelled.

    `fence` as of CloseRun.
    """

    run: int
    fence: bool = False


@dataclass(frozen=True, slots=True)
class RecordStart:
    """Write status.startTime with the resourceVersion that was observed: from here on the API server
    refuses edits of what is being sent. Must be accepted before the ledger's start."""

    at: datetime


@dataclass(frozen=True, slots=True)
class StartRun:
    """The ledger's start: the first wave and its ranges."""

    run: int
    definition_hash: str
    range_size: int


@dataclass(frozen=True, slots=True)
class CreatePlanJob:
    """Make the Job that plans."""

    run: int
    attempt: int


@dataclass(frozen=True, slots=True)
class CreateWaveJob:
    """Make the Job that sends one wave."""

    run: int
    wave: int
    ranges: int
    parallelism: int
    suspended: bool


@dataclass(frozen=True, slots=True)
class CreatePreflightJob:
    """Make the Job that tries a relay; `after` says which one before it was the last, and makes its name another."""

    made_for: str
    attempt: int
    after: str


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Delete a Job, its pods in the background."""

    name: str
    uid: str
    why: str


@dataclass(frozen=True, slots=True)
class ScaleJob:
    """Set a Job's parallelism."""

    name: str
    uid: str
    parallelism: int


@dataclass(frozen=True, slots=True)
class RememberScaling:
    """Keep what the control law remembers."""

    memory: Memory


@dataclass(frozen=True, slots=True)
class SuspendJob:
    """Set a Job's suspend."""

    name: str
    uid: str
    suspend: bool


@dataclass(frozen=True, slots=True)
class FailPod:
    """Patch a pod's status to Failed: its node is lost and will never say so."""

    name: str
    uid: str
    node: str


@dataclass(frozen=True, slots=True)
class MakeRepairWave:
    """Move the open ranges of a wave whose Job is over into a new wave."""

    run: int
    wave: int


@dataclass(frozen=True, slots=True)
class MakeRetryWave:
    """Make a wave of the deferred that are due."""

    run: int
    range_size: int


@dataclass(frozen=True, slots=True)
class RetryFailed:
    """Make a wave of those that failed with one of these codes, once a generation; it opens a Complete run again."""

    run: int
    generation: int
    codes: tuple[str, ...]
    range_size: int


@dataclass(frozen=True, slots=True)
class EndStep:
    """Note that a canary step has ended."""

    run: int
    step: int


@dataclass(frozen=True, slots=True)
class PassStep:
    """Let the wave after a canary step begin."""

    run: int
    step: int


@dataclass(frozen=True, slots=True)
class PauseRun:
    """Pause a run in the ledger, until a person says that the cause is mended."""

    run: int
    reason: PauseReason
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ResumeRun:
    """End a pause that happened at `until` or before: first in the limiter, then in the ledger."""

    run: int
    account: str
    until: datetime


@dataclass(frozen=True, slots=True)
class ReleaseBrake:
    """Open a brake in the limiter that has closed for a reason that is over."""

    account: str


@dataclass(frozen=True, slots=True)
class SettleRanges:
    """Account for what dead senders left open in ranges that nobody owns any more."""

    run: int


@dataclass(frozen=True, slots=True)
class AbsorbLate:
    """Take in outcomes that arrived after their range had ended."""

    run: int


@dataclass(frozen=True, slots=True)
class CompleteRun:
    """Close a run of which nothing is left."""

    run: int


@dataclass(frozen=True, slots=True)
class CloseRun:
    """Account for what is in flight, count the rest as cancelled, and end the run: as far as that can be done now.

    With `fence` leases are not waited out.
    """

    run: int
    into: RunState
    reason: EndReason | None = None
    fence: bool = False


@dataclass(frozen=True, slots=True)
class TellLimiter:
    """Say the campaign's weight, whether it is paused, when it may send, and its brake to the limiter: it closes at
    `open_until` and opens and closes again at `reopens`."""

    account: str
    weight: int
    paused: bool
    open_until: datetime | None = None
    reopens: tuple[tuple[datetime, datetime], ...] = ()
    brake: Brake | None = None


@dataclass(frozen=True, slots=True)
class ForgetInLimiter:
    """Take an ended campaign out of the limiter."""

    account: str


Action = (
    EnsureRun
    | AmendRun
    | EditRun
    | SupersedeRun
    | RecordStart
    | StartRun
    | CreatePlanJob
    | CreateWaveJob
    | DeleteJob
    | ScaleJob
    | RememberScaling
    | SuspendJob
    | FailPod
    | MakeRepairWave
    | MakeRetryWave
    | RetryFailed
    | EndStep
    | PassStep
    | PauseRun
    | ResumeRun
    | ReleaseBrake
    | SettleRanges
    | AbsorbLate
    | CompleteRun
    | CloseRun
    | TellLimiter
    | ForgetInLimiter
)
