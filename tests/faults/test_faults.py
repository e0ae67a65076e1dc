"""A taste of the matrix for `make test`: one seeded run of a row of each kind. `make faults` runs all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from faults.report import line
from faults.rows import all_rows
from faults.runner import jobs, run
from faults.stage import Stage
from faults.wire import step_of

if TYPE_CHECKING:
    from collections.abc import Iterator

TASTE = (
    "kill", "thaw", "kill-in-claim", "stop-record", "term", "term-hurry", "twins", "postgres-kill", "postgres-cut",
    "rewound",
    "commit-claim-after", "commit-record-hold", "commit-takeover-after", "commit-drain-before", "commit-close-after",
    "redis-kill", "smtp-refuse", "smtp-reset-after-dot", "smtp-451", "plan-killed", "plan-older", "rows-deleted",
)  # fmt: skip


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One house for all of them: a run that breaks something mends it."""
    with Stage(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TASTE)
def test_nobody_is_lost_and_nobody_mailed_twice_unexplained(name: str, stage: Stage) -> None:
    (job,) = jobs([all_rows()[name]], runs=1, defaults=False)
    result = run(stage, job)
    print(line(result))
    wrong = (result.lost, result.unexplained, result.over_bound, result.problem)  # times are for `make faults` alone
    assert wrong == (0, 0, False, None), line(result)
    assert result.planned
    assert result.samples


def test_the_steps_of_the_protocol_are_told_apart_by_their_statements() -> None:
    said = {
        "claim": "UPDATE range SET seq = seq + 1, lease_until",
        "record": "UPDATE range SET seq = seq + 1, lease_until\nCOPY delivery (run",
        "takeover": "UPDATE range SET epoch = epoch + 1, seq = seq + 1, owner\nCOPY delivery",
        "drain": "UPDATE range SET seq = seq + 1, returned = returned + open",
        "close": "UPDATE range SET epoch = epoch + 1\nUPDATE range SET state = 'Closed', cancelled = cancelled",
        "other": "SELECT 1",
    }
    assert {step: step_of(sql) for step, sql in said.items()} == {step: step for step in said}
