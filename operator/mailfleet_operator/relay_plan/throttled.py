"""Whether less than the relay's limit is sent because the relay itself wants it so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.conditions import time_text
from mailfleet_operator.status import rate_text

from .conditions import no, unknown, yes

if TYPE_CHECKING:
    from .conditions import Said
    from .observation import RelayObservation


def policy(o: RelayObservation) -> Said:
    """What the limiter does now."""
    account = o.account
    if account is None:
        return unknown("LimiterUnavailable", o.limiter_trouble or "the limiter does not know the relay's limits yet")
    if account.room_at:
        until = time_text(account.room_at)
        return yes("WaitingForQuota", f"the quota is used up: sending goes on at {until}")
    if account.slowed:
        message = (
            f"the relay asked to slow down: {rate_text(account.effective)} of {rate_text(account.limit)} for now; "
            "while it does not ask again, a twentieth of the limit comes back each minute"
        )
        return yes("RelayThrottling", message)
    return no("NotThrottled", "nothing but the limits holds mail back")
