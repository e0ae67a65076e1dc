"""What the operator remembers of a campaign or a relay between two looks. All of it can be lost: a restarted operator
measures again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .pace import Pace
from .scaling import Memory as Scaling

if TYPE_CHECKING:
    from datetime import datetime

    from mailfleet_sender.contract.relay import Relay

    from .actions import TellLimiter
    from .events import Told
    from .metrics import Shown
    from .observation import CampaignView


@dataclass(slots=True)
class CampaignMemory:
    """One campaign's. Touched by the one worker that looks at it.

    Attributes:
        pace: of run `run`.
        account, relay: that it uses.
        amended: generation whose policy is known to be in the ledger.
        stale: resourceVersion in the watch's index when `written` was answered by the API server; while the
            index still shows it, `written` is the newer object.
        status_at: monotonic seconds of the last write of the status.
        told: what the limiter was told last, and when (monotonic seconds).
        forgotten: the limiter was told that the run is over.
        ended: the run was over at the last look.
        shown: what the last look found.
        events: that were written, by their reason.
        quota_short_at: when its account's quota was last seen used up.
    """

    run: int = 0
    pace: Pace = field(default_factory=Pace)
    scaling: Scaling = field(default_factory=Scaling)
    account: str = ""
    relay: str = ""
    amended: int = 0
    stale: str = ""
    written: CampaignView | None = None
    status_at: float = 0.0
    told: TellLimiter | None = None
    told_at: float = 0.0
    forgotten: bool = False
    ended: bool = False
    shown: Shown | None = None
    events: dict[str, Told] = field(default_factory=dict)
    quota_short_at: datetime | None = None


@dataclass(slots=True)
class RelayMemory:
    """One relay's.

    Attributes:
        published: what ledger and limiter were told last, and when (monotonic seconds); None: tell it again.
        generation, sharing: of the relay at the last look.
        status_at: monotonic seconds of the last write of the status.
        wakes_at: when the relay is to be looked at again for its next preflight.
    """

    published: Relay | None = None
    published_at: float = 0.0
    generation: int = 0
    sharing: tuple[str, ...] = ()
    status_at: float = 0.0
    wakes_at: datetime | None = None
