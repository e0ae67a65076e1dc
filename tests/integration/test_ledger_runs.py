"""The operator's side: retries, repairs, settling, closing, and the books of many runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from ledgers import PAGE, Desk, campaign, claim, outcomes, page, send_all
from mailfleet_sender.contract.accounts import OutcomeKind, ReportReason, RunState, Totals, WaveKind
from mailfleet_sender.contract.relay import Relay
from mailfleet_sender.errors import Fenced
from mailfleet_sender.ledger import (
    Ended,
    Leased,
    OwnedRange,
    Positions,
    load_address_key,
    load_relay,
    report,
    save_relay,
)
from proxy import Proxy
from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    with Desk(database_url) as desk:
        yield desk


def defer(desk: Desk, index: int, count: int, *, after: int = 0) -> OwnedRange:
    """Claim and defer the next `count` of a range."""
    owned = desk.own(index)
    owned.record(outcomes(owned, claim(owned, count), OutcomeKind.DEFERRED, code="451", retry_after_seconds=after))
    return owned


def test_what_is_due_becomes_one_retry_wave_and_is_counted_once(desk: Desk) -> None:
    first = defer(desk, 0, 30)
    defer(desk, 1, 20, after=3_600)
    waiting = desk.runs.deferrals([desk.run])[desk.run]
    assert (waiting.waiting, waiting.due) == (50, 30)
    assert desk.runs.retry_wave(desk.run, PAGE) == 2
    assert desk.totals() == {"planned": 2_000, "deferred": 50, "remaining": 1_950}
    send_all(first)
    assert first.ended
    retry = desk.own(wave=2)
    keys = retry.recipients(Positions.span(0, 30))
    assert {k.key for k in keys} == {f"k{i}" for i in range(30)}
    assert {k.attempt for k in keys} == {1}
    assert all(k.since for k in keys)
    claim(retry, 10)
    retry.record(outcomes(retry, range(10)))
    assert desk.totals() == {"planned": 2_000, "sent": 480, "deferred": 40, "remaining": 1_480}
    assert desk.runs.retry_wave(desk.run, PAGE) is None  # one at a time
    rest = outcomes(retry, claim(retry, 20), OutcomeKind.DEFERRED, retry_after_seconds=0)
    assert {o.attempt for o in rest} == {2}
    retry.record(rest)
    assert retry.ended
    assert desk.totals() == {"planned": 2_000, "sent": 480, "deferred": 40, "remaining": 1_480}
    assert desk.runs.retry_wave(desk.run, PAGE) == 3
    third = desk.own(wave=3)
    assert {k.attempt for k in third.recipients(Positions.span(0, 20))} == {2}
    assert {k.since for k in third.recipients(Positions.span(0, 20))} <= {k.since for k in keys}
    send_all(third)
    assert desk.totals() == {"planned": 2_000, "sent": 500, "deferred": 20, "remaining": 1_480}
    assert [w.kind for w in desk.runs.waves([desk.run])[desk.run]] == [WaveKind.MAIN, WaveKind.RETRY, WaveKind.RETRY]


def test_a_retry_wave_larger_than_a_page_has_full_pages(desk: Desk) -> None:
    for index in range(3):
        defer(desk, index, PAGE)
    assert desk.runs.retry_wave(desk.run, PAGE) == 2
    for index in range(3):
        send_all(desk.own(index, wave=2))
    assert desk.totals() == {"planned": 2_000, "sent": 1_500, "remaining": 500}


def test_what_becomes_due_meanwhile_waits_for_the_open_retry_wave(desk: Desk) -> None:
    defer(desk, 0, 30)
    assert desk.runs.retry_wave(desk.run, PAGE) == 2
    defer(desk, 1, 20)
    assert desk.runs.deferrals([desk.run])[desk.run].due == 20
    assert desk.runs.retry_wave(desk.run, PAGE) is None
    send_all(desk.own(wave=2))
    assert desk.runs.retry_wave(desk.run, PAGE) == 3
    assert desk.totals() == {"planned": 2_000, "sent": 30, "deferred": 20, "remaining": 1_950}


def test_nothing_due_makes_no_wave(desk: Desk) -> None:
    defer(desk, 0, 30, after=3_600)
    assert desk.runs.retry_wave(desk.run, PAGE) is None
    assert len(desk.runs.waves([desk.run])[desk.run]) == 1


def test_two_operators_that_retry_at_once_make_one_wave(desk: Desk) -> None:
    defer(desk, 0, 30)
    made = [desk.soon(type(desk.runs)(desk.engine()).retry_wave, desk.run, PAGE) for _ in range(3)]
    assert sorted(str(m.result(10)) for m in made) == ["2", "None", "None"]
    desk.books()


def test_a_repair_wave_takes_what_is_open_even_under_a_living_owner(desk: Desk) -> None:
    send_all(desk.own(1))
    living = desk.own(2)
    now = claim(living, 50)
    assert desk.runs.repair_wave(desk.run, 1) == 2
    living.record(outcomes(living, now))
    assert desk.runs.open_ranges(desk.run) == [(2, 0), (2, 1), (2, 2)]
    assert isinstance(desk.acquire(0), Ended)
    assert isinstance(desk.acquire(1, wave=2), Leased)
    main, repair = desk.runs.waves([desk.run])[desk.run]
    assert (main.ranges, main.finished, main.open) == (4, 1, 0)
    assert (repair.kind, repair.ranges, repair.open, repair.active) == (WaveKind.REPAIR, 3, 3, 1)
    assert desk.runs.repair_wave(desk.run, 1) is None
    send_all(living)
    send_all(desk.own(0, wave=2))
    assert desk.totals() == {"planned": 2_000, "sent": 1_500, "remaining": 500}


def test_only_ranges_that_nobody_owns_are_settled(desk: Desk) -> None:
    dead, living, drained = desk.own(0), desk.own(1), desk.own(2)
    for owned in (dead, living, drained):
        claim(owned, 10)
    drained.drain()
    desk.expire(dead.id)
    assert desk.runs.unowned([desk.run]) == {desk.run: [dead.id]}
    assert desk.runs.settle_all(desk.run) == 1
    assert desk.runs.unowned([desk.run]) == {}
    assert desk.totals() == {"planned": 2_000, "uncertain": 10, "remaining": 1_990}
    living.record(outcomes(living, range(10)))


def test_a_run_is_complete_when_nothing_is_owed_and_stays_so(desk: Desk) -> None:
    deferred = defer(desk, 0, 5)
    send_all(deferred)
    for index in (1, 2):
        send_all(desk.own(index))
    assert not desk.runs.complete(desk.run)  # a range is open
    send_all(desk.own(3))
    assert not desk.runs.complete(desk.run)  # five are deferred
    desk.runs.retry_wave(desk.run, PAGE)
    assert not desk.runs.complete(desk.run)
    send_all(desk.own(wave=2), OutcomeKind.FAILED, code="550")
    assert desk.runs.complete(desk.run)
    assert desk.runs.complete(desk.run)
    assert desk.totals() == {"planned": 2_000, "sent": 1_995, "failed": 5}
    row = desk.runs.get(desk.run)
    assert row
    assert row.state is RunState.COMPLETE
    assert row.ended_at
    assert desk.runs.close(desk.run, RunState.CANCELLED)  # too late
    assert desk.runs.active() == []
    assert desk.totals() == {"planned": 2_000, "sent": 1_995, "failed": 5}


def test_closing_waits_for_a_lease_and_counts_the_rest_as_cancelled_once(desk: Desk) -> None:
    defer(desk, 0, 20, after=3_600).drain()
    owned = desk.own(1)
    now = claim(owned, 50)
    assert not desk.runs.close(desk.run, RunState.CANCELLED)
    assert desk.totals() == {"planned": 2_000, "deferred": 20, "cancelled": 1_480, "remaining": 500}
    owned.record(outcomes(owned, now.take(10)))
    owned.drain()
    assert desk.runs.close(desk.run, RunState.CANCELLED)
    assert desk.runs.close(desk.run, RunState.CANCELLED)
    assert desk.totals() == {"planned": 2_000, "sent": 10, "cancelled": 1_990}
    assert isinstance(desk.acquire(1), Ended)
    assert desk.runs.retry_wave(desk.run, PAGE) is None
    assert desk.runs.repair_wave(desk.run, 1) is None


def test_a_claim_that_comes_first_is_in_doubt_when_its_range_is_closed_and_may_be_cleared(desk: Desk) -> None:
    owned = desk.own()
    sent = outcomes(owned, claim(owned, 50))
    desk.expire()
    assert desk.runs.close(desk.run, RunState.CANCELLED)
    assert desk.totals() == {"planned": 2_000, "uncertain": 50, "cancelled": 1_950}
    with pytest.raises(Fenced):
        owned.record(sent)
    owned.leave_late(sent[:30])
    assert desk.runs.absorb_late(desk.run) == 30
    assert desk.runs.absorb_late(desk.run) == 0
    assert desk.totals() == {"planned": 2_000, "sent": 30, "uncertain": 20, "cancelled": 1_950}


def test_a_claim_that_waits_for_the_close_claims_nothing(desk: Desk) -> None:
    owned = desk.own()
    desk.expire()
    with Proxy(desk.url) as proxy:
        runs = type(desk.runs)(desk.engine(proxy.url), desk.runs._timing)
        proxy.fault, proxy.skip = "pause", 1  # the first COMMIT closes the untouched ranges
        closing = desk.soon(runs.close, desk.run, RunState.CANCELLED)
        assert proxy.paused.wait(10)
        claiming = desk.soon(claim, owned, 50)
        desk.until_blocked()
        proxy.go()
        assert closing.result(10)
        with pytest.raises(Fenced):
            claiming.result(10)
    assert desk.totals() == {"planned": 2_000, "cancelled": 2_000}


def test_closing_untouched_ranges_leaves_the_one_that_is_being_acquired(desk: Desk) -> None:
    with Proxy(desk.url) as proxy:
        proxy.fault = "pause"
        taking = desk.soon(desk.own, 2, url=proxy.url)
        assert proxy.paused.wait(10)
        closing = desk.soon(desk.runs.close, desk.run, RunState.CANCELLED)
        desk.until_blocked()
        proxy.go()
        owned = taking.result(10)
        assert closing.result(10) is False
    assert desk.totals() == {"planned": 2_000, "cancelled": 1_500, "remaining": 500}
    send_all(owned)
    assert desk.runs.close(desk.run, RunState.CANCELLED)
    assert desk.totals() == {"planned": 2_000, "sent": 500, "cancelled": 1_500}


def test_a_closed_retry_wave_cancels_what_was_deferred(desk: Desk) -> None:
    send_all(defer(desk, 0, 40))
    desk.runs.retry_wave(desk.run, PAGE)
    owned = desk.own(wave=2)
    owned.record(outcomes(owned, claim(owned, 15)))
    owned.drain()
    assert desk.runs.close(desk.run, RunState.FAILED)
    assert desk.totals() == {"planned": 2_000, "sent": 475, "cancelled": 1_525}


def test_a_run_that_never_started_is_cancelled_whole(desk: Desk) -> None:
    other = desk.runs.ensure("shop", "news", "2", campaign())
    plan = desk.planner.start(other.id, other.definition_hash)
    assert plan
    desk.planner.write(plan, [page(0, ["a", "b"]), page(0, ["c"], "Duplicate")])
    assert desk.planner.publish(plan, 3, 1, "text")
    assert desk.runs.close(other.id, RunState.FAILED)
    assert desk.runs.totals([other.id])[other.id] == Totals(planned=3, skipped=1, cancelled=2)
    assert not desk.runs.start(other.id, other.definition_hash, PAGE)
    assert not desk.runs.edit(other.id, campaign(subject="other"))


def test_another_run_id_supersedes_the_older_run_first(desk: Desk) -> None:
    owned = desk.own()
    desk.runs.ensure("shop", "news", "2", campaign())
    assert not desk.runs.supersede("shop", "news", but="2")
    owned.drain()
    assert desk.runs.supersede("shop", "news", but="2")
    assert [r.state for r in desk.runs.find("shop", "news")] == [RunState.SUPERSEDED, RunState.PLANNING]
    assert desk.totals() == {"planned": 2_000, "cancelled": 2_000}


def test_operators_that_close_settle_and_retry_at_once_count_everybody_once(desk: Desk) -> None:
    for index in range(3):
        owned = defer(desk, index, 40)
        claim(owned, 20)
    desk.expire()
    go = threading.Barrier(6)

    def operate(call: str) -> None:
        runs = type(desk.runs)(desk.engine(), desk.runs._timing)
        go.wait(10)
        for _ in range(3):
            if call == "close":
                runs.close(desk.run, RunState.CANCELLED)
            elif call == "settle":
                runs.settle_all(desk.run)
            else:
                runs.retry_wave(desk.run, PAGE)

    for done in [desk.soon(operate, call) for call in ("close", "settle", "retry") * 2]:
        done.result(60)
    wait_for("the run is closed", lambda: desk.runs.close(desk.run, RunState.CANCELLED))
    assert desk.totals() == {"planned": 2_000, "uncertain": 60, "cancelled": 1_940}


def test_many_runs_are_answered_in_one_statement_each(desk: Desk) -> None:
    ids = [desk.run, *(desk.runs.ensure("shop", f"c{i}", "1", campaign()).id for i in range(20))]
    assert set(desk.runs.totals([*ids, 4711])) == set(ids)
    for ask in (desk.runs.totals, desk.runs.waves, desk.runs.deferrals, desk.runs.unowned, desk.runs.late):
        assert not ask([])
    assert all(t.adds_up for t in desk.runs.totals(ids).values())
    assert set(desk.runs.waves(ids)) == {desk.run}


def test_one_report_a_reporter_replaced_in_place_and_cleared(desk: Desk) -> None:
    engine = desk.engine()
    report(engine, desk.run, "planner", ReportReason.KEY_NULL, "old")
    report(engine, desk.run, "planner", ReportReason.TABLE_NOT_FOUND, "ä" * 300)
    report(engine, desk.run, "0", ReportReason.RELAY_UNAVAILABLE, "the relay refuses")
    newest, older = desk.runs.reports([desk.run])
    assert (newest.reporter, newest.reason, newest.message) == (
        "0",
        ReportReason.RELAY_UNAVAILABLE,
        "the relay refuses",
    )
    assert (older.reason, older.message) == (ReportReason.TABLE_NOT_FOUND, "ä" * 128)
    report(engine, desk.run, "0", None)
    assert [r.reporter for r in desk.runs.reports([desk.run])] == ["planner"]


def test_a_relays_version_rises_with_each_change_only(desk: Desk) -> None:
    engine = desk.engine()
    relay = Relay.model_validate({"namespace": "shop", "name": "ses", "host": "h", "limits": {"rate": "14/s"}})
    faster = Relay.model_validate({"namespace": "shop", "name": "ses", "host": "h", "limits": {"rate": "15/s"}})
    first, same, second, again, third = [save_relay(engine, r) for r in (relay, relay, faster, faster, relay)]
    assert first == same < second == again < third
    assert load_relay(engine, "shop", "ses") == (relay, third)
    other = relay.model_copy(update={"name": "other"})
    assert save_relay(engine, other) > third  # whoever shares its account
    with pytest.raises(LookupError):
        load_relay(engine, "shop", "nothing")


def test_the_key_of_the_address_hash_is_made_once(desk: Desk) -> None:
    from mailfleet_sender.ledger import migrate  # noqa: PLC0415

    key = load_address_key(desk.engine())
    assert len(key) == 32
    migrate(desk.url)
    assert load_address_key(desk.engine()) == key


def test_what_is_approved_when_a_run_is_made_after_another_is_older_than_it(desk: Desk) -> None:
    def made(name: str, run_id: str, approved: int | None) -> tuple[int, int | None]:
        row = desk.runs.ensure("marketing", name, run_id, campaign(), approved_step=approved)
        return row.id, row.approved_before

    def now(run: int) -> int | None:
        row = desk.runs.get(run)
        assert row
        return row.approved_before

    first, before = made("a-new-one", "1", 1)
    assert before is None, "the first of its name: it was approved in advance"
    second, before = made("a-new-one", "2", 1)
    assert before == 1
    assert made("a-new-one", "2", 1) == (second, 1)
    assert made("a-new-one", "3", None)[1] is None
    assert desk.runs.amend(second, campaign(), approved_step=1)
    assert now(second) == 1, "the same manifest once more"
    assert desk.runs.amend(second, campaign(), approved_step=None)
    assert desk.runs.amend(second, campaign(), approved_step=1)
    assert now(second) is None, "it was taken out, and is there anew"
    fourth, _ = made("a-new-one", "4", 2)
    assert desk.runs.edit(fourth, campaign(), approved_step=2)
    assert now(fourth) == 2
    assert desk.runs.edit(fourth, campaign(), approved_step=3)
    assert now(fourth) is None
    assert now(first) is None
