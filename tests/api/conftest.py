"""The project's definitions on a real API server."""

from __future__ import annotations

import contextlib
import functools
import itertools
from typing import TYPE_CHECKING

import pytest

from custom_resources import CRDS
from kube import KubectlError
from operator_hand import Hand, OperatorProcess, fresh_ledger
from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kube import ControlPlane
    from services import PostgresServer, RedisServer

KINDS = ("emailcampaign", "emailrelay")
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> ControlPlane:
    """The API server with `emailcampaigns` and `emailrelays`."""
    control_plane.kubectl("apply", "--server-side", "-f", str(CRDS))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=120s", "-f", str(CRDS))
    # Discovery and the schemas behind `kubectl explain` follow a moment later.
    wait_for("kubectl explain knows both", lambda: all(map(functools.partial(_explained, control_plane), KINDS)))
    return control_plane


def _explained(control_plane: ControlPlane, kind: str) -> bool:
    with contextlib.suppress(KubectlError):
        return bool(control_plane.kubectl("explain", f"{kind}.spec"))
    return False


@pytest.fixture
def namespace(api: ControlPlane) -> str:
    """A fresh namespace for one test."""
    name = f"marketing-{next(_numbers)}"
    api.kubectl("create", "namespace", name)
    return name


@pytest.fixture(scope="module")
def ledger_url(postgres: PostgresServer) -> str:
    """A ledger for the module's operator."""
    return fresh_ledger(postgres.database)


@pytest.fixture(scope="module")
def operator(
    api: ControlPlane, ledger_url: str, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """An operator for the tests of a module; what it logs has no traceback."""
    folder = tmp_path_factory.mktemp("operator")
    with OperatorProcess(api, folder, ledger_url=ledger_url, redis_url=redis_server.url) as process:
        yield process
        text = process.log.read_text()
        assert "Traceback" not in text, text[-6000:]


@pytest.fixture
def hand(operator: OperatorProcess, api: ControlPlane, namespace: str, ledger_url: str, database_url: str) -> Hand:
    """A person with that operator, a namespace and an empty database for recipients."""
    if not operator.lives:
        operator.start()
    return Hand(api, namespace, ledger_url, database_url)
