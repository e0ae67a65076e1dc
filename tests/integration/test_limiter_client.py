"""A pod's client and the operator's hands on a real Redis: seeds, versions, failures, TLS."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import redis

from mailfleet_sender.contract.rate import Rate
from mailfleet_sender.errors import LimiterUnavailable
from mailfleet_sender.limiter import (
    AccountLimits,
    CampaignUse,
    Limiter,
    LimiterAdmin,
    Permits,
    Refusal,
    Why,
    open_limiter,
    open_limiter_admin,
    seed_limits,
)
from mailfleet_sender.limiter.keys import Keys
from services import RedisServer, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from redis.asyncio import Redis

ACCOUNT, CAMPAIGN = "team/relay", "team/news"
RATE = Rate.parse("100/s")


async def no_seed() -> None:
    raise AssertionError("Redis has limits")


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    async with open_limiter(redis_url) as opened:
        yield opened


@pytest.fixture
def admin(redis_url: str) -> Iterator[LimiterAdmin]:
    with open_limiter_admin(redis_url) as opened:
        yield LimiterAdmin(opened)


def limiter(client: Redis, seed: Callable[[], Awaitable[None]] = no_seed, *, pod: str = "p0") -> Limiter:
    return Limiter(client, account=ACCOUNT, campaign=CAMPAIGN, pod=pod, seed=seed)


async def permits(asked: Limiter, want: int) -> Permits:
    """The next permits; a refusal is waited out by asking again."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if isinstance(answer := await asked.reserve(want), Permits):
            return answer
    raise TimeoutError("no permits within 20 s")


async def test_a_pod_that_finds_no_limits_seeds_them_and_gets_permits(client: Redis, admin: LimiterAdmin) -> None:
    seeds = []

    async def seed() -> None:
        seeds.append(await seed_limits(client, ACCOUNT, 4, AccountLimits(RATE)))

    first = await permits(limiter(client, seed), 10)
    assert seeds == [True]
    assert first.count == 10
    assert first.called_at <= first.received_at
    start, end = first.slot(0)
    assert end - start <= first.grace_seconds
    assert admin.state(ACCOUNT).version == 4


async def test_limits_that_redis_does_not_keep_are_an_error_and_no_endless_loop(client: Redis) -> None:
    async def forgotten() -> None:
        await client.flushall()

    with pytest.raises(LimiterUnavailable, match="does not keep"):
        await limiter(client, forgotten).reserve(1)


async def test_a_pod_that_wants_nothing_does_not_ask(client: Redis) -> None:
    with pytest.raises(ValueError, match="wants 0"):
        await limiter(client).reserve(0)


async def test_only_a_higher_version_replaces_limits(client: Redis, admin: LimiterAdmin) -> None:
    assert admin.write_limits(ACCOUNT, 5, AccountLimits(RATE))
    assert not await seed_limits(client, ACCOUNT, 5, AccountLimits(Rate.parse("1/m")))
    assert not await seed_limits(client, ACCOUNT, 4, AccountLimits(Rate.parse("1/m")))
    assert not admin.write_limits(ACCOUNT, 4, AccountLimits(Rate.parse("1/m")))
    assert admin.state(ACCOUNT).permits_per_second == 100
    assert await seed_limits(client, ACCOUNT, 10, AccountLimits(Rate.parse("200/s,max_burst=40")))
    state = admin.state(ACCOUNT)
    assert (state.version, state.permits_per_second, state.burst) == (10, 200, 40)


async def test_seeding_keeps_what_the_operator_said_of_campaigns(client: Redis, admin: LimiterAdmin) -> None:
    admin.set_campaign(ACCOUNT, CAMPAIGN, weight=300, paused=True)
    await seed_limits(client, ACCOUNT, 1, AccountLimits(RATE))
    answer = await limiter(client).reserve(10)
    assert isinstance(answer, Refusal)
    assert answer.why is Why.PAUSED
    assert answer.after_seconds == pytest.approx(1)
    assert admin.state(ACCOUNT).campaigns == {CAMPAIGN: CampaignUse(300, paused=True)}


async def test_redis_time_closes_a_window(client: Redis, admin: LimiterAdmin) -> None:
    admin.write_limits(ACCOUNT, 1, AccountLimits(RATE))
    admin.set_campaign(ACCOUNT, CAMPAIGN, open_until=datetime(2020, 1, 1, tzinfo=UTC))
    answer = await limiter(client).reserve(10)
    assert isinstance(answer, Refusal)
    assert answer.why is Why.CLOSED
    admin.set_campaign(ACCOUNT, CAMPAIGN, open_until=datetime(2100, 1, 1, tzinfo=UTC))
    assert (await permits(limiter(client), 10)).count == 10


async def test_the_state_shows_bookings_and_hungry_pods_and_forgets_what_it_is_told_to(
    client: Redis, admin: LimiterAdmin
) -> None:
    admin.write_limits(ACCOUNT, 1, AccountLimits(RATE))
    assert (await permits(limiter(client, pod="hungry"), 500)).count < 500
    assert (await permits(limiter(client, pod="content"), 1)).count == 1
    state = admin.state(ACCOUNT)
    assert 0 < state.booked_seconds <= 1.1
    assert state.campaigns == {CAMPAIGN: CampaignUse(pods=2, hungry_pods=1)}
    admin.set_campaign(ACCOUNT, "team/other", weight=7)
    assert admin.state(ACCOUNT).campaigns["team/other"] == CampaignUse(7)
    admin.forget(ACCOUNT, "team/other")
    assert "team/other" not in admin.state(ACCOUNT).campaigns
    admin.forget_account(ACCOUNT)
    assert admin.state(ACCOUNT).version is None
    assert await client.keys("*") == []


def test_a_weight_of_nothing_is_refused(admin: LimiterAdmin) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        admin.set_campaign(ACCOUNT, CAMPAIGN, weight=0)


async def test_a_redis_that_forgot_its_scripts_is_taught_again_and_books_once(
    client: Redis, admin: LimiterAdmin
) -> None:
    admin.write_limits(ACCOUNT, 1, AccountLimits(RATE))
    asked = limiter(client)
    await permits(asked, 10)
    before = admin.state(ACCOUNT).booked_seconds
    await client.script_flush()
    assert (await permits(asked, 10)).count == 10
    assert admin.state(ACCOUNT).booked_seconds <= before + 0.1


async def test_the_grants_of_one_account_never_exceed_its_bookings(client: Redis, admin: LimiterAdmin) -> None:
    admin.write_limits(ACCOUNT, 1, AccountLimits(RATE))
    granted = 0
    asked = limiter(client)
    first_booking = None
    for _ in range(20):
        answer = await permits(asked, 10)
        granted += answer.count
        tat = int(await client.hget(Keys(ACCOUNT).state, "tat"))
        first_booking = first_booking or tat - round(answer.count * 1e6 / RATE.per_second)
        assert granted <= (tat - first_booking) / 1e6 * RATE.per_second + 1e-3


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that the test may stop and freeze."""
    with RedisServer(tmp_path) as server:
        yield server
        server.signal(signal.SIGCONT)


async def test_a_redis_that_is_gone_is_told_once_and_never_asked_twice(own_redis: RedisServer) -> None:
    async with open_limiter(own_redis.url) as client:
        await seed_limits(client, ACCOUNT, 1, AccountLimits(RATE))
        asked = limiter(client)
        await permits(asked, 10)
        own_redis.kill()
        with pytest.raises(LimiterUnavailable, match="does not answer") as caught:
            await asked.reserve(10)
        assert "redis-url" in str(caught.value)
        own_redis.start()

        async def seed() -> None:
            await seed_limits(client, ACCOUNT, 1, AccountLimits(RATE))

        again = limiter(client, seed)
        assert (await permits(again, 10)).count == 10
    with open_limiter_admin(own_redis.url) as blocking:
        LimiterAdmin(blocking).ping()
        own_redis.kill()
        with pytest.raises(LimiterUnavailable):
            LimiterAdmin(blocking).ping()


async def test_a_frozen_redis_costs_one_second_and_its_late_call_no_false_alarm(own_redis: RedisServer) -> None:
    async with open_limiter(own_redis.url) as client:
        await seed_limits(client, ACCOUNT, 1, AccountLimits(RATE))
        asked = limiter(client)
        await permits(asked, 10)
        own_redis.signal(signal.SIGSTOP)
        with pytest.raises(LimiterUnavailable, match="Timeout"):
            await asked.reserve(10)
        own_redis.signal(signal.SIGCONT)
        wait_for("the call that timed out is made after all", lambda: _calls(own_redis) >= 2)
        made = _calls(own_redis)
        await asked.reserve(10)
        assert _calls(own_redis) == made + 1, "an automatic retry would book again"


def _calls(server: RedisServer) -> int:
    """Calls of a script other than the one that writes limits."""
    with redis.Redis.from_url(server.url) as client:
        stats = client.info("commandstats").get("cmdstat_evalsha", {})
        return int(stats.get("calls", 0)) - int(stats.get("failed_calls", 0)) - 1


async def test_a_wrong_password_is_told_without_repeating_it(own_redis: RedisServer) -> None:
    with redis.Redis.from_url(own_redis.url) as boss:
        boss.config_set("requirepass", "right")
    async with open_limiter(own_redis.url.replace("redis://", "redis://:wrong@")) as client:
        with pytest.raises(LimiterUnavailable, match="user or password") as caught:
            await limiter(client).reserve(1)
    assert "wrong" not in str(caught.value)


async def test_a_redis_without_memory_is_told_in_its_own_words(own_redis: RedisServer) -> None:
    async with open_limiter(own_redis.url) as client:
        await seed_limits(client, ACCOUNT, 1, AccountLimits(RATE))
        asked = limiter(client)
        await asked.reserve(1)
        await client.config_set("maxmemory", 1)
        with pytest.raises(LimiterUnavailable, match=r"refuses the call: .*maxmemory"):
            await asked.reserve(1)


@pytest.fixture
def tls_redis(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A Redis that speaks only TLS: its URL and the certificate that signs it."""
    server, openssl = shutil.which("redis-server"), shutil.which("openssl")
    assert server
    assert openssl
    key, certificate, port = tmp_path / "key.pem", tmp_path / "cert.pem", free_port()
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    options = {
        "port": 0, "tls-port": port, "bind": "127.0.0.1", "tls-cert-file": certificate, "tls-key-file": key,
        "tls-auth-clients": "no", "save": "", "dir": tmp_path,
    }  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [server, *(str(x) for k, v in options.items() for x in (f"--{k}", v))], stdout=log, stderr=log
        )
    url = f"rediss://127.0.0.1:{port}/0"
    trusted = f"{url}?ssl_ca_certs={certificate}"
    try:
        with open_limiter_admin(trusted) as blocking:
            wait_for("Redis speaks TLS", lambda: _answers(blocking))
        yield url, certificate
    finally:
        process.terminate()
        process.wait(20)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


async def test_rediss_speaks_tls_and_trusts_only_whom_it_knows(tls_redis: tuple[str, Path]) -> None:
    url, certificate = tls_redis
    async with open_limiter(f"{url}?ssl_ca_certs={certificate}") as client:
        await seed_limits(client, ACCOUNT, 1, AccountLimits(RATE))
        assert (await permits(limiter(client), 10)).count == 10
    async with open_limiter(url) as stranger:
        with pytest.raises(LimiterUnavailable, match="does not answer"):
            await limiter(stranger).reserve(1)
