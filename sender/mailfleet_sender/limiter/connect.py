"""Clients of Redis that never repeat a call by themselves: each repetition would book permits again.

Three kinds of address (docs/decisions/0025): one server, `redis://`; a master that Sentinels name, `redis+sentinel://`;
a Redis Cluster, `redis+cluster://`. With `rediss` instead of `redis` all of them speak TLS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import redis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel

from mailfleet_sender.errors import SettingsError

if TYPE_CHECKING:
    from types import TracebackType

SECONDS = 1.0
"""Time for a connection, and for an answer: permits in hand run off as quickly (LIMITER, client rules 1 and 5)."""
SENTINEL_SECONDS = 0.3
"""The same for one Sentinel: of three, two may be gone, and the whole call has a second."""
REDIS_PORT, SENTINEL_PORT = 6379, 26379
FORMS = (
    "redis://host:port/0, redis+sentinel://host:port,host:port/service/0 or redis+cluster://host:port,host:port; "
    "rediss://... and so on for TLS"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where Redis is.

    Attributes:
        kind: "" one server, "sentinel", "cluster".
        hosts: of the Sentinels, or of some nodes of the cluster.
        service: the name that the Sentinels have for the master.
        options: what redis-py takes: user, password, database, TLS.
        sentinel_options: the same for the Sentinels themselves.
    """

    kind: str
    hosts: tuple[tuple[str, int], ...]
    service: str
    options: dict[str, Any]
    sentinel_options: dict[str, Any]

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL.

        Raises:
            ValueError: it is none of the forms; the text holds nothing of it.
        """
        scheme, _, kind = urlsplit(url).scheme.partition("+")
        if scheme not in {"redis", "rediss"} or kind not in {"sentinel", "cluster"}:
            raise ValueError("another scheme")
        parts = urlsplit(url)
        login, at, hosts = parts.netloc.rpartition("@")
        path = [unquote(part) for part in parts.path.strip("/").split("/") if part]
        query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        own = {name: query.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in query}
        if kind == "sentinel":
            if len(path) not in {1, 2}:
                raise ValueError("no service")
            service, database = path[0], path[1] if len(path) > 1 else "0"
            if not database.isdecimal():
                raise ValueError("no database")
        elif path not in ([], ["0"]):
            raise ValueError("a Redis Cluster has no databases")
        else:
            service, database = "", ""
        plain = f"{scheme}://{login}{at}host/{database}" + (f"?{urlencode(query)}" if query else "")
        options: dict[str, Any] = dict(parse_url(plain))  # type: ignore[no-untyped-call]
        for name in ("host", "port", "connection_class"):
            options.pop(name, None)
        tls: dict[str, Any] = {"ssl": True} if scheme == "rediss" else {}
        tls |= {name: value for name, value in options.items() if name.startswith("ssl_")}
        port = SENTINEL_PORT if kind == "sentinel" else REDIS_PORT
        return cls(kind, _hosts(hosts, port), service, options | tls, own | tls)


def _hosts(text: str, port: int) -> tuple[tuple[str, int], ...]:
    found = []
    for one in text.split(","):
        parts = urlsplit(f"//{one}")
        if not parts.hostname:
            raise ValueError("no host")
        found.append((parts.hostname, parts.port or port))
    return tuple(found)


def open_limiter(url: str) -> redis.asyncio.Redis | redis.asyncio.RedisCluster:
    """A pod's client; nothing is opened before the first call. redis-py documents the query (`ssl_ca_certs`, ...).

    Raises:
        SettingsError: this is no URL of Redis.
    """
    retry = AsyncRetry(NoBackoff(), 0)
    timeouts: dict[str, Any] = {"socket_timeout": SECONDS, "socket_connect_timeout": SECONDS, "retry": retry}
    try:
        if "+" not in url.partition("://")[0]:
            return redis.asyncio.Redis.from_url(url, **timeouts)
        where = Address.parse(url)
    except ValueError as error:
        raise _no_url() from error
    if where.kind == "cluster":
        nodes = [AsyncClusterNode(host, port) for host, port in where.hosts]
        return _AsyncCluster(startup_nodes=nodes, **where.options, **timeouts)
    quick = {"socket_timeout": SENTINEL_SECONDS, "socket_connect_timeout": SENTINEL_SECONDS, "retry": retry}
    sentinel: Any = AsyncSentinel(list(where.hosts), sentinel_kwargs=where.sentinel_options | quick)  # type: ignore[no-untyped-call]
    client = sentinel.master_for(where.service, redis_class=_AsyncMaster, **where.options, **timeouts)
    client.sentinels = sentinel.sentinels
    return cast("redis.asyncio.Redis", client)


def open_limiter_admin(url: str) -> redis.Redis | redis.RedisCluster:
    """The operator's client, for `LimiterAdmin`; blocking, and several threads may use it.

    Raises:
        SettingsError: this is no URL of Redis.
    """
    retry = Retry(NoBackoff(), 0)
    timeouts: dict[str, Any] = {"socket_timeout": SECONDS, "socket_connect_timeout": SECONDS, "retry": retry}
    try:
        if "+" not in url.partition("://")[0]:
            return redis.Redis.from_url(url, **timeouts)
        where = Address.parse(url)
    except ValueError as error:
        raise _no_url() from error
    if where.kind == "cluster":
        return cast("redis.RedisCluster", _Cluster(where, timeouts))
    quick = {"socket_timeout": SENTINEL_SECONDS, "socket_connect_timeout": SENTINEL_SECONDS, "retry": retry}
    sentinel: Any = Sentinel(list(where.hosts), sentinel_kwargs=where.sentinel_options | quick)  # type: ignore[no-untyped-call]
    client = sentinel.master_for(where.service, redis_class=_Master, **where.options, **timeouts)
    client.sentinels = sentinel.sentinels
    return cast("redis.Redis", client)


def _no_url() -> SettingsError:
    return SettingsError(f"redis-url is no URL of Redis: write {FORMS}")


class _AsyncMaster(redis.asyncio.Redis):
    """The master that Sentinels name; closes the connections to them as well."""

    sentinels: tuple[redis.asyncio.Redis, ...] | list[redis.asyncio.Redis] = ()

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - redis-py's signature
        for client in self.sentinels:
            await client.aclose()
        await super().aclose(close_connection_pool)


class _Master(redis.Redis):
    """The same, blocking."""

    sentinels: tuple[redis.Redis, ...] | list[redis.Redis] = ()

    def close(self) -> None:
        for client in self.sentinels:
            client.close()
        super().close()


class _AsyncCluster(redis.asyncio.RedisCluster):
    """A cluster that is first looked for by the first call: one that is away is waited for, as a server is."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _Cluster:
    """The same, blocking: redis-py's own would look for the nodes when it is made."""

    def __init__(self, where: Address, options: dict[str, Any]) -> None:
        self._where, self._options = where, options
        self._client: redis.RedisCluster | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client:
            self._client.close()

    def __getattr__(self, name: str) -> Any:
        if self._client is None:
            node: Any = ClusterNode
            nodes = [node(host, port) for host, port in self._where.hosts]
            self._client = redis.RedisCluster(startup_nodes=nodes, **self._where.options, **self._options)
        return getattr(self._client, name)
