"""The limits of a relay's row, written into a Redis that has none: by senders, and by `test`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .limiter import seed_limits

if TYPE_CHECKING:
    import redis.asyncio

    from .contract.relay import Relay


async def seed_relay(client: redis.asyncio.Redis | redis.asyncio.RedisCluster, relay: Relay, version: int) -> None:
    """Write them, unless Redis has them in this or a newer version.

    Raises:
        LimiterUnavailable: Redis does not answer.
    """
    await seed_limits(
        client,
        relay.account,
        version,
        relay.rate,
        domains=relay.domain_rates,
        quota=relay.limits.quota,
        connections=relay.connections.max,
    )
