"""Redis in more than one process: a master and a replica under Sentinels, and a small Redis Cluster, on loopback."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import redis

from services import RedisServer, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVICE = "limiter"
SLOTS = 16_384


class SentinelServer(RedisServer):
    """One Sentinel: `redis-server --sentinel` is what Debian's redis-sentinel runs."""

    def __init__(self, folder: Path, master_port: int, quorum: int) -> None:
        super().__init__(folder)
        self.config = folder / "sentinel.conf"
        self.config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {master_port} {quorum}\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\nsentinel failover-timeout {SERVICE} 5000\n"
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        binary = shutil.which("redis-server")
        assert binary
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([binary, self.config, "--sentinel"], stdout=log, stderr=log)
        wait_for("a Sentinel answers", self._answers)


class Watched:
    """A master, a replica and three Sentinels.

    Attributes:
        url: for the limiter's clients.
    """

    def __init__(self, servers: list[RedisServer], sentinels: list[SentinelServer]) -> None:
        self.servers, self.sentinels = servers, sentinels
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        self.url = f"redis+sentinel://{hosts}/{SERVICE}/0"

    def master(self) -> RedisServer:
        """Whom the first Sentinel that lives calls master."""
        for sentinel in self.sentinels:
            try:
                with redis.Redis(port=sentinel.port) as client:
                    address: Any = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
            except redis.ConnectionError:
                continue
            return next(server for server in self.servers if server.port == int(address[1]))
        raise RuntimeError("no Sentinel lives")

    def knows_all(self) -> bool:
        """Whether each Sentinel knows the replica and both others."""
        for sentinel in self.sentinels:
            with redis.Redis(port=sentinel.port, decode_responses=True) as client:
                line: Any = client.execute_command("INFO", "sentinel")
                text = line if isinstance(line, str) else str(line)
            if "slaves=1,sentinels=3" not in text.replace("'", "").replace(": ", "=").replace(", ", ","):
                return False
        return True


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """Start all of it."""
    with ExitStack() as stack:
        places = [folder / name for name in ("master", "replica", "one", "two", "three")]
        for place in places:
            place.mkdir()
        master = stack.enter_context(RedisServer(places[0]))
        replica = stack.enter_context(RedisServer(places[1], "--replicaof", "127.0.0.1", str(master.port)))
        sentinels = [stack.enter_context(SentinelServer(place, master.port, 2)) for place in places[2:]]
        found = Watched([master, replica], sentinels)
        wait_for("the Sentinels know each other and the replica", found.knows_all)
        yield found


@contextmanager
def redis_cluster(folder: Path) -> Iterator[tuple[str, list[RedisServer]]]:
    """Three masters that share the slots: the URL and the servers."""
    with ExitStack() as stack:
        nodes = []
        for name in ("one", "two", "three"):
            (folder / name).mkdir()
            options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "1000")
            nodes.append(stack.enter_context(RedisServer(folder / name, *options)))
        _join(nodes)
        yield f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in nodes)}", nodes


def _join(nodes: list[RedisServer]) -> None:
    first = nodes[0]
    for k, node in enumerate(nodes):
        with redis.Redis(port=node.port) as client:
            begin, end = k * SLOTS // len(nodes), (k + 1) * SLOTS // len(nodes) - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", begin, end)
            bus = node.options[node.options.index("--cluster-port") + 1]
        with redis.Redis(port=first.port) as client:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)

    def agreed() -> bool:
        for node in nodes:
            with redis.Redis(port=node.port) as client:
                info = str(client.execute_command("CLUSTER", "INFO"))
                if "cluster_state:ok" not in info or f"cluster_known_nodes:{len(nodes)}" not in info:
                    return False
        return True

    wait_for("the cluster is whole", agreed)
