"""Changes and connections of the ledger, without a ledger."""

from __future__ import annotations

import psycopg2
import pytest
from sqlalchemy.exc import DBAPIError

from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.errors import Fenced, LedgerError, LedgerRewound, LedgerUnavailable, SettingsError
from mailfleet_sender.ledger import EMPTY, Outcome, Positions, Timing, open_ledger
from mailfleet_sender.ledger.change import Change
from mailfleet_sender.ledger.connection import passes, settings_of
from mailfleet_sender.ledger.statements import RangeState

BEFORE = RangeState("(0,1)", 10, Positions.span(0, 4), Positions.of([5]), EMPTY, EMPTY)


def test_a_change_counts_its_outcomes_by_kind() -> None:
    kinds = [OutcomeKind.SENT, OutcomeKind.SENT, OutcomeKind.FAILED]
    change = Change(10, done=Positions.span(0, 3), outcomes=tuple(Outcome(i, "k", k) for i, k in enumerate(kinds)))
    values = change.parameters()
    assert (values["sent"], values["failed"], values["deferred"], values["done"]) == (2, 1, 0, "{[0,3)}")


@pytest.mark.parametrize(
    ("change", "planned", "ends"),
    [
        (Change(10, done=Positions.span(0, 4), taken=Positions.of([5])), 10, True),
        (Change(10, done=Positions.span(0, 4), taken=Positions.of([5])), 11, False),
        (Change(10, done=Positions.span(0, 4)), 10, False),
        (Change(10, done=Positions.span(0, 3), taken=Positions.of([5])), 10, False),
        (Change(10, done=Positions.span(0, 4), taken=Positions.of([5]), again=Positions.of([0])), 10, False),
        (Change(10, now=Positions.of([5]), taken=Positions.of([5]), done=Positions.span(0, 4)), 10, False),
    ],
)
def test_a_change_ends_a_range_when_it_leaves_nothing_owed(change: Change, planned: int, *, ends: bool) -> None:
    assert change.finishes(BEFORE, planned) is ends


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@h/d",
        "postgres://u:p@h/d?sslmode=require",
        "postgresql+psycopg2://u:p@h/d",
        "postgresql://u:p@h1:5432,h2:5433/d?target_session_attrs=read-write",
        "host=h dbname=d",
    ],
)
def test_a_ledgers_url_is_whatever_libpq_takes(url: str) -> None:
    open_ledger(url, application_name="test").dispose()


def test_a_url_that_is_none_is_refused_without_being_shown() -> None:
    with pytest.raises(SettingsError) as refused:
        open_ledger("mysql://u:secret@h/d", application_name="test")
    assert "secret" not in str(refused.value)


def test_errors_of_the_world_pass_and_mistakes_do_not() -> None:
    assert passes(psycopg2.OperationalError())
    assert passes(psycopg2.errors.ReadOnlySqlTransaction())
    assert passes(psycopg2.errors.LockNotAvailable())
    assert passes(psycopg2.DatabaseError())
    assert passes(DBAPIError("", None, psycopg2.InterfaceError()))
    assert not passes(psycopg2.errors.CheckViolation())
    assert not passes(psycopg2.errors.UndefinedTable())
    assert not passes(psycopg2.DataError())


def test_each_error_has_its_family_and_a_built_in_parent() -> None:
    assert issubclass(LedgerUnavailable, LedgerError | ConnectionError)
    assert all(issubclass(e, LedgerError) and issubclass(e, RuntimeError) for e in (Fenced, LedgerRewound))
    assert not any(issubclass(e, OSError) for e in (Fenced, LedgerRewound))


def test_every_transaction_is_durable_and_limited() -> None:
    assert settings_of(Timing()) == (
        "SET LOCAL synchronous_commit = on; SET LOCAL idle_in_transaction_session_timeout = 5000;"
        " SET LOCAL statement_timeout = 30000; SET LOCAL lock_timeout = 10000"
    )
