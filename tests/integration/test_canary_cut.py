"""The cut of an audience into canary steps and the rest, by a real Postgres: exact, and spread evenly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg2
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from csv_desk import Desk
from ledgers import keys_of
from mailfleet_sender.audience import Audience, open_recipients
from mailfleet_sender.audience.steps import cut
from mailfleet_sender.contract.campaign import Canary, CanaryStep, Table
from mailfleet_sender.contract.environment import Exit
from mailfleet_sender.ledger import migrate, open_ledger
from mailfleet_sender.ledger.values import pages_of_step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from services import PostgresServer

STEP = st.one_of(
    st.integers(1, 700).map(lambda n: CanaryStep(recipients=n)), st.integers(1, 99).map(lambda n: CanaryStep(percent=n))
)
STEPS = st.lists(STEP, min_size=1, max_size=10).map(tuple)


@pytest.fixture(scope="module")
def server(postgres: PostgresServer) -> Iterator[sa.Connection]:
    engine = open_recipients(postgres.database(), application_name="test")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def steps_in_order(server: sa.Connection, audience: int, steps: tuple[CanaryStep, ...]) -> list[tuple[int, int, int]]:
    """For each key, in their order: its step, and its number within that."""
    keys = sa.func.generate_series(0, audience - 1).column_valued("k")
    numbered = sa.select(
        keys.label("k"),
        sa.literal_column("0", sa.Integer).label("v"),
        sa.cast(keys, sa.BigInteger).label("n"),
        sa.cast(audience, sa.BigInteger).label("total"),
    ).subquery("numbered")
    found = cut(numbered, steps, 0)
    return [tuple(row) for row in server.execute(sa.select(found.c.k, found.c.step, found.c.n).order_by(found.c.k))]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(audience=st.integers(0, 1500), steps=STEPS)
@example(audience=1, steps=(CanaryStep(recipients=100), CanaryStep(percent=5)))
@example(audience=1500, steps=(CanaryStep(percent=1),) * 10)
def test_steps_partition_the_audience_and_are_spread_evenly(
    server: sa.Connection, audience: int, steps: tuple[CanaryStep, ...]
) -> None:
    found = steps_in_order(server, audience, steps)
    sizes = Canary(steps=steps).sizes(audience)
    numbers: dict[int, list[int]] = {}
    for _, step, number in found:
        numbers.setdefault(step, []).append(number)
    # Each key is in exactly one step or the rest, and each of these is numbered without a gap, in the keys' order.
    assert [key for key, _, _ in found] == list(range(audience))
    assert all(n == list(range(len(n))) for n in numbers.values())
    assert {step: len(n) for step, n in numbers.items() if step} == dict(enumerate(sizes, 1))
    # Every stretch from the beginning on holds its share of each step: so any stretch does, to within twice that.
    seen = dict.fromkeys(numbers, 0)
    for n, (_, step, _) in enumerate(found, 1):
        seen[step] += 1
        for each, count in seen.items():
            assert abs(count - len(numbers[each]) * n / audience) <= len(sizes) + 1


def test_percentages_are_of_those_to_send_rounded_up_and_a_small_audience_ends_early() -> None:
    canary = Canary(steps=(CanaryStep(recipients=100), CanaryStep(percent=5), CanaryStep(percent=10)))
    assert canary.sizes(10_001) == (100, 501, 1001)
    assert canary.sizes(120) == (100, 6, 12)
    assert canary.sizes(104) == (100, 4)
    assert canary.sizes(100) == (100,)
    assert canary.sizes(0) == ()


@pytest.mark.parametrize("canary", [None, Canary(steps=(CanaryStep(recipients=100), CanaryStep(percent=5)))])
def test_the_plan_s_one_statement_cuts_what_is_sent_and_nothing_that_is_skipped(
    database_url: str, canary: Canary | None
) -> None:
    connection = psycopg2.connect(database_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE people (id bigint PRIMARY KEY, email text)")
        cursor.execute(
            "INSERT INTO people SELECT i, CASE WHEN i % 10 = 0 THEN NULL ELSE 'p' || i || '@example.com' END"
            " FROM generate_series(1, 20000) i"
        )
    connection.close()
    engine = open_recipients(database_url, application_name="test")
    audience = Audience(engine, Table(name="people"), (), steps=canary.steps if canary else ())
    pages = list(audience.pages())
    engine.dispose()
    by_step: dict[int, list[int]] = {}
    for page in pages:
        if page.reason is None:
            mine = by_step.setdefault(page.step, [])
            assert page.number == len(mine) / 500  # all but the last are full, and none is missing
            mine += map(int, keys_of(page))
    sizes = {step: len(keys) for step, keys in by_step.items()}
    assert sizes == ({0: 17_000, 1: 100, 2: 900} if canary else {0: 18_000})
    assert all(keys == sorted(keys) for keys in by_step.values())
    assert sorted(k for keys in by_step.values() for k in keys) == [i for i in range(1, 20_001) if i % 10]
    assert sum(page.keys.count for page in pages if page.reason) == 2_000


@pytest.fixture(scope="module")
def desk(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    url = postgres.database()
    migrate(url)
    ledger = open_ledger(url, application_name="test", pool_size=2)
    folder: Path = tmp_path_factory.mktemp("files")
    yield Desk(url, ledger, folder)
    ledger.dispose()


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(0, 1_300), bad=st.integers(2, 50), keyed=st.booleans(), steps=STEPS)
@example(rows=1_300, bad=3, keyed=True, steps=(CanaryStep(recipients=100), CanaryStep(percent=5)))
@example(rows=1_300, bad=3, keyed=False, steps=(CanaryStep(recipients=600), CanaryStep(percent=5)))
def test_the_rows_of_a_file_are_cut_as_those_of_a_table(
    desk: Desk, rows: int, bad: int, keyed: bool, steps: tuple[CanaryStep, ...]
) -> None:
    """By the verb: keys are lines, or those of a column, sorted by octets; who is skipped is in no step."""
    lines = [f"k{n},{'nobody' if n % bad == 0 else f'u{n}@example.com'},N" for n in range(1, rows + 1)]
    desk.write("\n".join(["id,email,first_name", *lines]) + "\n")
    desk.sql("DELETE FROM page; DELETE FROM csv_row; DELETE FROM csv_load; DELETE FROM run_message; DELETE FROM run")
    wanted = desk.campaign(**({"keyColumn": "id"} if keyed else {}))
    assert desk.plan(wanted.model_copy(update={"canary": Canary(steps=steps)})) is Exit.DONE
    good = [n for n in range(1, rows + 1) if n % bad]
    order = sorted(f"k{n}" for n in good) if keyed else [str(n + 1) for n in good]
    steps_of = {pages_of_step(step): step for step in range(11)}
    found: dict[int, list[str]] = {}
    for wave, number, keys in desk.sql("SELECT wave, number, keys FROM page WHERE reason IS NULL ORDER BY 1, 2"):
        mine = found.setdefault(steps_of[wave], [])
        assert number == len(mine) / 500, "all pages but a step's last are full"
        mine += keys
    sizes = Canary(steps=steps).sizes(len(order))
    assert {step: len(keys) for step, keys in found.items() if step} == dict(enumerate(sizes, 1))
    place = {key: n for n, key in enumerate(order)}
    assert sorted(k for keys in found.values() for k in keys) == sorted(order), "each is in one step or in the rest"
    for keys in found.values():
        places = [place[key] for key in keys]
        assert places == sorted(places)
        for count, at in enumerate(places):
            assert abs(count - len(keys) * at / len(order)) <= len(sizes) + 2, "spread evenly"
