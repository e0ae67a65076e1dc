"""Real services for the tests: each session starts its own Postgres and Redis on free ports of loopback."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from kube import Cluster, ControlPlane, running_cluster
from postfix import Postfix
from services import PostgresServer, RedisServer
from sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


# How long an example takes says how busy the machine is; speed is measured in benchmarks/.
# The tests judge a commit, with the same examples each time; `make nightly` looks for new ones.
settings.register_profile(
    "house",
    deadline=None,
    derandomize="MAILFLEET_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("house")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A private Postgres cluster; `postgres.database()` makes a fresh database and gives its URL."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture
def database_url(postgres: PostgresServer) -> str:
    """A fresh, empty database for one test."""
    return postgres.database()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A private Redis."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The private Redis, emptied."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real API server with its controllers, alone: `.kubeconfig` and `.kubectl(*args)`; no pod ever runs."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    """The oracle: a programmable SMTP sink of its own, empty."""
    with Sink(tmp_path) as server:
        yield server


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real cluster with a node and with the images of this checkout; kubectl and helm of this process use it."""
    found = running_cluster()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(found.kubeconfig))
        patch.setenv("PATH", str(found.tools), prepend=os.pathsep)
        yield found


@pytest.fixture(scope="session")
def postfix() -> Iterator[Postfix]:
    """A real Postfix of its own: takes mail for every address at example.com. Needs root."""
    with Postfix() as server:
        yield server
