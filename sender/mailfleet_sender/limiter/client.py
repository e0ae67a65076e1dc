"""A pod's side of the limiter."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisClusterException, RedisError

from mailfleet_sender.errors import LimiterUnavailable

from .keys import Keys
from .limits import usage_arguments
from .permits import ANY, LACKS_LIMITS, LACKS_USAGE, MICRO, answered
from .report import Report, wants
from .scripts import LIMITS, RESERVE, USAGE
from .trouble import unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from redis.asyncio import Redis, RedisCluster
    from redis.commands.core import AsyncScript

    from .limits import AccountLimits
    from .permits import Permits, Refusal

TIMEOUT_SECONDS = 1.0
"""An answer that comes later is of no use: its permits lie within the second after the call."""
SEEDINGS = 2
"""Limits that are gone again as soon as they are written: Redis does not keep them."""


class Limiter:
    """Asks one relay's limiter for permits, for one pod of one campaign.

    The client that is given must not retry by itself: each retry would book again.

    Attributes:
        limited: domains with a limit of their own, as far as the last answer told.
        connections: that this pod may hold, by the last answer; None: any number.
        report: what is told with the next call; the caller counts up in it. What a failed call has told is lost: it
            may have been heard all the same, and nothing is given back twice.
    """

    def __init__(
        self,
        client: Redis | RedisCluster,
        *,
        account: str,
        campaign: str,
        pod: str,
        seed: Callable[[], Awaitable[None]],
        usage: Callable[[], Awaitable[None]] | None = None,
        limited: Iterable[str] = (),
    ) -> None:
        """Nothing is asked yet.

        Args:
            client: see `open_limiter`.
            account: the key of the relay's limits.
            campaign: namespace/name.
            pod: unique among the pods of the account.
            seed: writes the account's limits into Redis when it has none (`seed_limits`).
            usage: writes what is used of the quota, when Redis has lost it (`seed_usage`); None: there is no quota.
            limited: domains with a limit, as far as is known before the first answer.
        """
        self._script = client.register_script(RESERVE)
        self._keys, self._who, self._seed, self._usage = Keys(account).all, (campaign, pod), seed, usage
        self._last_call: float | None = None
        self.limited, self.report = frozenset(limited), Report()
        self.connections: int | None = None

    async def reserve(self, want: int, domains: Mapping[str, int] | None = None) -> Permits | Refusal:
        """Ask for up to `want` permits; never ask twice at once.

        Args:
            want: permits that can be used in all, at least 1; one answer gives at most 500.
            domains: rows that are ready to be sent, by domain (`ANY`: without a limit); None: `want`, for any.

        Raises:
            LimiterUnavailable: Redis does not answer within a second, or refuses. Ask again after 0.25 s.
            ValueError: nothing is wanted.
        """
        ready = [*wants(want, {ANY: want} if domains is None else dict(domains))]
        if want < 1 or not ready:
            raise ValueError(f"a pod that wants {want} permits does not ask")
        for _ in range(SEEDINGS + 1):
            if answer := await self._ask(want, ready):
                return answer
        raise LimiterUnavailable("Redis does not keep the relay's limits: check its memory and its eviction policy")

    async def leave(self) -> None:
        """Tell what is left to tell; the others share what this pod had, at once.

        Raises:
            LimiterUnavailable: Redis does not answer; it finds out within three seconds.
        """
        await self._ask(0, [])

    async def _ask(self, most: int, ready: list[str | int]) -> Permits | Refusal | None:
        report, self.report = self.report, Report()
        called = time.monotonic()
        elapsed = int((called - self._last_call) / MICRO) if self._last_call is not None else 0
        self._last_call = None  # a call that fails may have been made all the same: the next elapsed is unknown
        reply = await _run(self._script, self._keys, [*self._who, elapsed, most, *report.arguments(), *ready])
        received = time.monotonic()
        self._last_call = called
        if reply[0] == LACKS_LIMITS:
            await self._seed()
        elif reply[0] == LACKS_USAGE and self._usage:
            await self._usage()
        draw = random.random()  # noqa: S311 - keeps pods from coming at once, nothing else
        answer = answered(reply, called_at=called, received_at=received, draw=draw)
        if answer is not None:
            self.limited, self.connections = answer.limited, answer.connections
        return answer


async def seed_limits(client: Redis | RedisCluster, account: str, version: int, limits: AccountLimits) -> bool:
    """Write an account's limits unless Redis has them in this or a newer version.

    Returns:
        whether they were written.

    Raises:
        LimiterUnavailable: Redis does not answer.
    """
    keys = Keys(account)
    script = client.register_script(LIMITS)
    return bool(await _run(script, [keys.limits, keys.quota], limits.arguments(version, datetime.now(UTC))))


async def seed_usage(client: Redis | RedisCluster, account: str, usage: Iterable[tuple[datetime, int]]) -> bool:
    """Tell what is used of an account's quota, when Redis has lost it.

    Args:
        client: see `open_limiter`.
        account: the key of the relay's limits.
        usage: beginnings of buckets of five minutes with the messages in each, since `USAGE_LOOK_BACK` ago.

    Returns:
        whether it was written: nobody else came first.

    Raises:
        LimiterUnavailable: Redis does not answer.
    """
    script = client.register_script(USAGE)
    return bool(await _run(script, [Keys(account).quota], usage_arguments(usage)))


async def _run(script: AsyncScript, keys: list[str], arguments: list[Any]) -> Any:
    """EVALSHA; redis-py loads the script and asks again if Redis does not know it, which has then booked nothing."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await script(keys=keys, args=arguments)
    except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
        raise unavailable(error) from error
