"""The end-to-end tests' ground: a real node, one installation, and a stage for each campaign."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from e2e.board import Board
from e2e.evidence import Evidence
from e2e.house import House, house
from e2e.stage import Stage
from mailfleet_cluster import audit, places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HERE = Path(__file__).parent
AFTERWARDS = "test_afterwards.py"
DESELECTED = pytest.StashKey[bool]()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Note that not all of these tests run."""
    for item in items:
        if item.path.parent == HERE:
            item.config.stash[DESELECTED] = True


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What judges all end-to-end tests comes after the last of them."""
    last = [item for item in items if item.path == HERE / AFTERWARDS]
    others = [item for item in items if item not in last]
    end = max((n for n, item in enumerate(others, 1) if item.path.parent == HERE), default=0)
    items[:] = [*others[:end], *last, *others[end:]]


@pytest.fixture(scope="session")
def whole(request: pytest.FixtureRequest) -> bool:
    """Whether every end-to-end test runs in this session."""
    chosen = request.config.stash.get(DESELECTED, False) or any("::" in argument for argument in request.config.args)
    files = {item.path for item in request.session.items if item.path.parent == HERE}
    return not chosen and files == set(HERE.glob("test_*.py"))


@pytest.fixture(scope="session")
def collected(cluster: Any) -> Iterator[Evidence | None]:
    """All that is written and shown anywhere from now on; None where the node is not this machine."""
    if not audit.is_kept(places.state()):
        yield None
        return
    with Evidence(places.state()) as evidence:
        yield evidence


@pytest.fixture(scope="session")
def evidence(mailfleet: House, collected: Evidence | None) -> Evidence:
    """The same; without it the test is skipped."""
    if collected is None:
        pytest.skip("neither the node's folders nor the API server's audit log are within reach")
    return collected


@pytest.fixture(scope="session")
def mailfleet(cluster: Any, collected: Evidence | None) -> Iterator[House]:
    """Mailfleet with Postgres, Redis and the sink, installed once."""
    with house() as found:
        yield found


@pytest.fixture(scope="session")
def board(mailfleet: House) -> Iterator[Board]:
    """Every version of every campaign's status, and the ledger's totals beside it."""
    with Board(mailfleet.kubectl, mailfleet.ledger_url) as found:
        yield found


@pytest.fixture
def make_stage(mailfleet: House, board: Board, request: pytest.FixtureRequest) -> Iterator[Callable[..., Stage]]:
    """Make a stage with its namespace; at the end of the test the sum has held in every sample, and it is removed."""
    made: list[Stage] = []
    before = len(board.broken)

    def make(name: str, **fields: Any) -> Stage:
        stage = Stage(mailfleet, board, name, **fields)
        stage.prepare()
        made.append(stage)
        return stage

    yield make
    mailfleet.oracle.behave()
    for stage in made:
        stage.kubectl("delete", "namespace", stage.namespace, "--wait=false", "--ignore-not-found")
    assert board.failure is None
    assert board.broken[before:] == [], "planned is the sum of all other terms, at every moment"
    assert all(board.looks[stage.namespace, stage.campaign] > 3 for stage in made), "samples were taken"
