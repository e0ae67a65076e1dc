"""The lease of a range, kept as long as its sender works."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from mailfleet_sender.ledger import boottime

if TYPE_CHECKING:
    from mailfleet_sender.ledger import OwnedRange

    from .loop import Delivery
    from .threads import Thread


async def keep_lease(owned: OwnedRange, ledger: Thread, delivery: Delivery, lease_seconds: float) -> None:
    """Renew the lease in time, and cut what is in flight when it ends all the same; run it as a task."""
    step = lease_seconds / 5
    renewing: asyncio.Task[None] | None = None
    while True:
        left = owned.lease_ends - boottime()
        if left <= 0:
            delivery.abort()
        if left < 2 * step and (renewing is None or renewing.done()):
            if renewing:
                with contextlib.suppress(OSError):
                    renewing.result()
            renewing = asyncio.create_task(ledger.run(owned.renew))
        await asyncio.sleep(min(step, max(left, 0.05)))
