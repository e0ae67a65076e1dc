"""The end-to-end tests' ground: a real node, one installation, and a stage for each campaign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from e2e.board import Board
from e2e.house import House, house
from e2e.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def mailfleet(cluster: Any) -> Iterator[House]:
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
