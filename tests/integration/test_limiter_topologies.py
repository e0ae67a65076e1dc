"""Redis under Sentinels and as a Cluster: real servers; nothing is booked twice, and an outage is waited out."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
import redis

from mailfleet_sender.contract.rate import Rate
from mailfleet_sender.errors import LimiterUnavailable
from mailfleet_sender.limiter import (
    AccountLimits,
    Limiter,
    LimiterAdmin,
    Permits,
    open_limiter,
    open_limiter_admin,
    seed_limits,
)
from redis_topologies import redis_cluster, watched
from services import wait_for

if TYPE_CHECKING:
    from pathlib import Path

RATE = Rate.parse("100/s")


async def permits(limiter: Limiter, *, seconds: float = 30) -> Permits:
    """The next permits, as a sender asks: a refusal and an outage are waited out."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            answer = await limiter.reserve(10)
        except LimiterUnavailable:
            await asyncio.sleep(0.25)
            continue
        if isinstance(answer, Permits):
            return answer
        await asyncio.sleep(answer.after_seconds)
    raise TimeoutError(f"no permits within {seconds:g} s")


def calls(port: int) -> int:
    with redis.Redis(port=port) as client:
        stats = client.info("commandstats").get("cmdstat_evalsha", {})
        return int(stats.get("calls", 0)) - int(stats.get("failed_calls", 0))


async def test_a_fail_over_by_sentinels_is_waited_out_by_senders_and_operator(tmp_path: Path) -> None:
    with watched(tmp_path) as house, open_limiter_admin(house.url) as blocking:
        admin = LimiterAdmin(blocking)
        async with open_limiter(house.url) as client:

            async def seed() -> None:
                await seed_limits(client, "team/relay", 1, AccountLimits(RATE))

            limiter = Limiter(client, account="team/relay", campaign="team/news", pod="p0", seed=seed)
            assert (await permits(limiter)).count == 10
            assert admin.state("team/relay").version == 1
            first = house.master()
            first.kill()
            house.sentinels[0].kill()
            with pytest.raises(LimiterUnavailable, match="does not answer"):
                await limiter.reserve(10)
            assert (await permits(limiter)).count == 10
            assert house.master() is not first

            def answers() -> bool:
                try:
                    return admin.state("team/relay").version == 1
                except LimiterUnavailable:
                    return False

            wait_for("the operator finds the new master", answers)
            before = calls(house.master().port)
            await limiter.reserve(10)
            assert calls(house.master().port) == before + 1


async def test_a_cluster_keeps_an_account_in_one_node_and_its_loss_is_waited_out(tmp_path: Path) -> None:
    with redis_cluster(tmp_path) as (url, nodes), open_limiter_admin(url) as blocking:
        admin = LimiterAdmin(blocking)
        admin.ping()
        async with open_limiter(url) as client:
            limiters = []
            for name in "abcdef":
                account = f"team/{name}"
                assert admin.write_limits(account, 1, AccountLimits(RATE))
                admin.set_campaign(account, "team/news", weight=7)

                async def seed(account: str = account) -> None:
                    await seed_limits(client, account, 1, AccountLimits(RATE))

                limiters.append(Limiter(client, account=account, campaign="team/news", pod="p0", seed=seed))
                assert (await permits(limiters[-1])).count == 10
                assert admin.state(account).campaigns["team/news"].weight == 7
            assert all(calls(node.port) for node in nodes), "the accounts lie in all nodes"
            before = sum(calls(node.port) for node in nodes)
            for limiter in limiters:
                await limiter.reserve(10)
            assert sum(calls(node.port) for node in nodes) == before + len(limiters)
            for node in nodes:
                node.kill()
            with pytest.raises(LimiterUnavailable):
                await limiters[0].reserve(10)
            with pytest.raises(LimiterUnavailable):
                admin.ping()
            for node in nodes:
                node.start()
            for limiter in limiters:
                assert (await permits(limiter)).count == 10
            admin.forget_account("team/a")
            assert admin.state("team/a").version is None


async def test_a_cluster_that_is_away_at_the_start_is_waited_for(tmp_path: Path) -> None:
    with redis_cluster(tmp_path) as (url, nodes):
        for node in nodes:
            node.kill()
        with open_limiter_admin(url) as blocking, pytest.raises(LimiterUnavailable):
            LimiterAdmin(blocking).ping()
        async with open_limiter(url) as client:

            async def seed() -> None:
                await seed_limits(client, "team/relay", 1, AccountLimits(RATE))

            limiter = Limiter(client, account="team/relay", campaign="team/news", pod="p0", seed=seed)
            with pytest.raises(LimiterUnavailable):
                await limiter.reserve(10)
            for node in nodes:
                node.start()
            assert (await permits(limiter)).count == 10
