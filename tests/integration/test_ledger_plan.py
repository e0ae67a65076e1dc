"""Planners, edits and the start: one of them wins, wholly."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgers import PAGE, Desk, campaign, page
from mailfleet_sender.contract.accounts import RunState
from mailfleet_sender.contract.campaign import OnUncertain
from mailfleet_sender.errors import LedgerUnavailable, PlanMismatch
from mailfleet_sender.ledger import KeyArray, Plan, PlannedPage, Planner, Positions, load_campaign
from proxy import Proxy
from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHER = campaign(subject="other")
AWKWARD = ("", "NULL", "null", ",", "{}", '"', "\\", '\\"', " a ", "a b", "\n", "ü,\\\\")


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    with Desk(database_url, start=False) as desk:
        yield desk


def started(desk: Desk, definition: str | None = None) -> Plan:
    plan = desk.planner.start(desk.run, definition or desk.hash)
    assert plan
    return plan


def written(desk: Desk, plan: Plan, keys: int = 3) -> Plan:
    desk.planner.write(plan, [page(0, [f"k{i}" for i in range(keys)])])
    return plan


def state(desk: Desk) -> RunState:
    row = desk.runs.get(desk.run)
    assert row
    return row.state


def test_before_a_plan_nothing_is_planned_and_after_it_all_remain(desk: Desk) -> None:
    assert desk.books().totals["planned"] == 0
    desk.plan(1_200, skipped=3)
    assert state(desk) is RunState.PLANNED
    assert desk.totals() == {"planned": 1_203, "skipped": 3, "remaining": 1_200}
    assert desk.planner.start(desk.run, desk.hash) is None  # planned already


def test_of_two_planners_the_newer_alone_publishes(desk: Desk) -> None:
    older, newer = written(desk, started(desk), 3), written(desk, started(desk), 4)
    assert not desk.planner.publish(older, 3, 0, "text")
    assert desk.planner.publish(newer, 4, 0, "text")
    assert not desk.planner.publish(older, 3, 0, "text")
    assert desk.planner.sweep(desk.run) == 1
    assert desk.sql("SELECT plan, keys FROM page") == [(newer.number, ["k0", "k1", "k2", "k3"])]


def test_an_older_plan_whose_pages_were_swept_is_late_not_broken(desk: Desk) -> None:
    older, newer = written(desk, started(desk)), written(desk, started(desk))
    assert desk.planner.publish(newer, 3, 0, "text")
    assert desk.planner.sweep(desk.run) == 1
    assert not desk.planner.publish(older, 3, 0, "text")


def test_two_planners_that_publish_at_once_publish_one_plan(desk: Desk) -> None:
    plans = [written(desk, started(desk), n) for n in (3, 4)]
    done = [desk.soon(Planner(desk.engine()).publish, p, n, 0, "text") for p, n in zip(plans, (3, 4), strict=True)]
    assert [d.result(10) for d in done] == [False, True]


def test_a_plan_of_an_older_definition_publishes_nothing(desk: Desk) -> None:
    older = written(desk, started(desk))
    assert desk.runs.edit(desk.run, OTHER)
    assert not desk.planner.publish(older, 3, 0, "text")
    assert desk.planner.start(desk.run, desk.hash) is None
    assert started(desk, OTHER.definition_hash())
    assert load_campaign(desk.engine(), desk.run)[:4] == (OTHER, "shop/news/1", "shop", "news")


def test_an_edit_after_the_plan_plans_anew(desk: Desk) -> None:
    desk.plan(700)
    assert desk.runs.edit(desk.run, OTHER)
    assert state(desk) is RunState.PLANNING
    assert desk.books().totals["planned"] == 0
    assert not desk.runs.start(desk.run, desk.hash, PAGE)
    assert not desk.runs.start(desk.run, OTHER.definition_hash(), PAGE)
    plan = written(desk, started(desk, OTHER.definition_hash()))
    assert desk.planner.sweep(desk.run) == 2
    assert desk.planner.publish(plan, 3, 0, "text")
    assert not desk.runs.start(desk.run, desk.hash, PAGE)  # whoever accepted the older definition observes again
    assert desk.runs.start(desk.run, OTHER.definition_hash(), PAGE)
    assert desk.totals() == {"planned": 3, "remaining": 3}


def test_an_edit_after_the_start_comes_to_nothing(desk: Desk) -> None:
    desk.plan(700)
    assert desk.runs.start(desk.run, desk.hash, PAGE)
    assert not desk.runs.edit(desk.run, OTHER)
    assert load_campaign(desk.engine(), desk.run).campaign == desk.campaign
    assert desk.planner.start(desk.run, desk.hash) is None


@pytest.mark.parametrize("first", ["edit", "start"])
def test_edit_and_start_at_once_the_second_comes_to_nothing(desk: Desk, first: str) -> None:
    desk.plan(700)
    with Proxy(desk.url) as proxy:
        slow = type(desk.runs)(desk.engine(proxy.url))
        slow.get(desk.run)
        proxy.fault = "pause"
        if first == "edit":
            one = desk.soon(slow.edit, desk.run, OTHER)
            assert proxy.paused.wait(10)
            two = desk.soon(desk.runs.start, desk.run, desk.hash, PAGE)
        else:
            one = desk.soon(slow.start, desk.run, desk.hash, PAGE)
            assert proxy.paused.wait(10)
            two = desk.soon(desk.runs.edit, desk.run, OTHER)
        desk.until_blocked()
        proxy.go()
        assert (one.result(10), two.result(10)) == (True, False)
    desk.books()


def test_the_start_makes_ranges_of_whole_pages_once(desk: Desk) -> None:
    desk.plan(2_600, skipped=1)
    assert desk.runs.start(desk.run, desk.hash, 900)
    assert desk.runs.start(desk.run, desk.hash, 900)  # the answer to the first was lost
    assert desk.sql("SELECT idx, first_page, planned FROM range ORDER BY idx") == [
        (0, 0, 1000),
        (1, 2, 1000),
        (2, 4, 600),
    ]
    ((wave,),) = desk.runs.waves([desk.run]).values()
    assert (wave.number, wave.kind, wave.ranges, wave.planned, wave.open, wave.unclaimed) == (
        1,
        "Main",
        3,
        2600,
        3,
        2600,
    )
    owned = desk.own(2)
    assert [k.key for k in owned.recipients(Positions.of([0, 499, 500, 599]))] == ["k2000", "k2499", "k2500", "k2599"]
    assert desk.totals() == {"planned": 2_601, "skipped": 1, "remaining": 2_600}


def test_a_start_whose_answer_was_lost_happened_once(desk: Desk) -> None:
    desk.plan(700)
    with Proxy(desk.url) as proxy:
        runs = type(desk.runs)(desk.engine(proxy.url))
        proxy.fault = "after"
        with pytest.raises(LedgerUnavailable):
            runs.start(desk.run, desk.hash, PAGE)
        assert runs.start(desk.run, desk.hash, PAGE)
    assert desk.totals() == {"planned": 700, "remaining": 700}


def test_an_audience_of_nobody_is_complete_at_once(desk: Desk) -> None:
    desk.plan(0, skipped=4)
    assert desk.runs.start(desk.run, desk.hash, PAGE)
    assert desk.runs.complete(desk.run)
    assert desk.totals() == {"planned": 4, "skipped": 4}


@pytest.mark.parametrize(
    ("pages", "planned", "skipped"),
    [
        ([page(1, ["a"])], 1, 0),
        ([page(0, ["a"]), page(1, ["b"])], 2, 0),
        ([page(0, ["a"]), page(1, [str(i) for i in range(PAGE)])], 501, 0),
        ([page(0, ["a"])], 2, 0),
        ([page(0, ["a"]), page(0, ["b"], "Duplicate")], 2, 0),
        ([page(0, ["a"]), page(2, [str(i) for i in range(PAGE)])], 501, 0),
    ],
    ids=["no first page", "two short pages", "a short page first", "too few", "skipped not said", "a gap"],
)
def test_pages_that_are_not_what_they_are_said_to_be_are_not_published(
    desk: Desk, pages: list[PlannedPage], planned: int, skipped: int
) -> None:
    plan = started(desk)
    desk.planner.write(plan, pages)
    with pytest.raises(PlanMismatch):
        desk.planner.publish(plan, planned, skipped, "text")
    assert state(desk) is RunState.PLANNING


def test_no_transaction_waits_for_the_next_page(desk: Desk) -> None:
    opened = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL"

    def pages() -> Iterator[PlannedPage]:
        for number in range(250):
            wait_for("all that was begun is committed", lambda: desk.value(opened) == 1, interval=0.001)  # this one
            yield page(number, [f"k{number * PAGE + i}" for i in range(PAGE)])

    assert desk.planner.write(started(desk), pages()) == 250
    assert desk.value("SELECT count(DISTINCT xmin::text) FROM page") >= 3


def test_policy_may_change_under_one_definition_at_any_time_and_nothing_else(desk: Desk) -> None:
    desk.plan(700)
    assert desk.runs.start(desk.run, desk.hash, PAGE)
    assert desk.runs.amend(desk.run, campaign(OnUncertain.RESEND))
    assert load_campaign(desk.engine(), desk.run).campaign.on_uncertain is OnUncertain.RESEND
    assert desk.own().on_uncertain is OnUncertain.RESEND
    assert not desk.runs.amend(desk.run, OTHER)
    assert load_campaign(desk.engine(), desk.run).campaign == campaign(OnUncertain.RESEND)


def test_the_same_run_is_found_again_whoever_asks(desk: Desk) -> None:
    first = desk.runs.ensure("shop", "news", "1", OTHER)
    assert (first.id, first.definition_hash) == (desk.run, desk.hash)
    other = desk.runs.ensure("shop", "news", "2", OTHER)
    assert other.id != desk.run
    assert [r.run_id for r in desk.runs.find("shop", "news")] == ["1", "2"]
    assert desk.runs.find_all([("shop", "nothing"), ("shop", "news")]) == desk.runs.active()


def test_a_run_that_nobody_knows_is_an_error(desk: Desk) -> None:
    with pytest.raises(LookupError):
        load_campaign(desk.engine(), 4711)
    assert desk.runs.get(4711) is None


def test_keys_are_taken_apart_as_postgres_puts_them_together(database_url: str) -> None:
    texts = st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0")) | st.sampled_from(AWKWARD), max_size=5
    )
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:

        @given(keys=texts)
        def taken_apart(keys: list[str]) -> None:
            cursor.execute("SELECT CAST(%s AS text[])::text", [keys])
            ((literal,),) = cursor.fetchall()
            assert KeyArray(literal, len(keys)).apart() == keys
            assert KeyArray.of(keys).apart() == keys

        taken_apart()
