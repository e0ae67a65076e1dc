"""The demonstration's own judgement: a verdict that could not be a bad one would show nothing."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mailfleet_demo.kubectl import objects
from mailfleet_demo.oracle import Books, Limit, adds_up, peak
from mailfleet_demo.people import people
from mailfleet_demo.progress import LateError, Line, SumError, describe, follow
from mailfleet_demo.shop import CopyText, field

LIMIT = Limit(per_second=10, burst=1)
GOOD = {"planned": 5, "sent": 3, "skipped": 2, "failed": 0, "uncertain": 0, "deferred": 0, "remaining": 0}


def books(**changes: Any) -> Books:
    """Books of five rows that hold, but for the changes."""
    values: dict[str, Any] = {
        "rows": 5,
        "recipients": GOOD,
        "expected": frozenset("abc"),
        "accepted": [(0.0, "a"), (0.1, "b"), (0.2, "c")],
        "limit": LIMIT,
    }
    return Books(**{**values, **changes})


def test_books_that_hold_have_no_fault_and_the_last_line_says_so() -> None:
    assert books().faults() == []
    assert books().last_line() == (
        "demo: planned=5 sent=3 skipped=2 failed=0 uncertain=0 duplicates=0 lost=0 peak_rate=3/s limit=10/s"
    )


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"accepted": [(0.0, "a"), (0.1, "b")]}, "1 addresses never got their mail"),
        ({"accepted": [(0.0, "a"), (0.1, "b"), (0.2, "c"), (0.3, "a")]}, "1 mails were sent a second time"),
        ({"accepted": [(0.0, "a"), (0.1, "b"), (0.2, "A")]}, "1 addresses got a mail that they should not get"),
        ({"rows": 6}, "planned is 5, the table has 6 rows"),
        ({"recipients": GOOD | {"skipped": 1, "failed": 1}}, "failed is 1"),
        ({"recipients": GOOD | {"skipped": 1, "uncertain": 1}}, "uncertain is 1"),
        ({"recipients": GOOD | {"sent": 2, "skipped": 3}}, "sent is 2, the sink has 3 mails"),
        ({"recipients": {}}, "planned is 0, the table has 5 rows"),
        ({"limit": Limit(per_second=1, burst=1)}, "3 mails in a second, 2 are allowed"),
    ],
)
def test_each_thing_that_can_be_wrong_is_a_fault(changes: dict[str, Any], fault: str) -> None:
    assert fault in books(**changes).faults()


@given(st.lists(st.integers(0, 5_000), max_size=60))
def test_the_peak_is_the_fullest_window_of_a_second_by_counting_each(ticks: list[int]) -> None:
    # 1,024 ticks a second, so that both sides agree on what "exactly a second later" is.
    counted = max((sum(tick <= other < tick + 1_024 for other in ticks) for tick in ticks), default=0)
    assert peak([tick / 1_024 for tick in ticks]) == counted


def test_people_are_the_same_at_each_run_and_of_every_kind() -> None:
    rows = list(people(20_000))
    assert rows == list(people(20_000))
    assert list(islice(people(200_000), 100)) == rows[:100]
    assert [p.id for p in rows] == list(range(1, 20_001))
    addresses = [p.email for p in rows if p.email and p.email.count("@") == 1 and p.id]
    assert len(addresses) - len(set(addresses)) > 10, "addresses that repeat"
    assert len(set(addresses)) - len({a.lower() for a in addresses}) > 10, "equal but for the case"
    assert any(p.email is None for p in rows)
    assert any(p.first_name is None for p in rows)
    assert any(p.first_name and not p.first_name.isascii() for p in rows)
    assert max(len(p.first_name or "") for p in rows) > 200


def test_copy_text_comes_in_blocks_and_keeps_every_column() -> None:
    rows = list(people(300))
    text, source = "", CopyText(rows)
    while block := source.read(100):
        assert len(block) <= 100
        text += block
    assert text == "".join("\t".join(map(field, row)) + "\n" for row in rows)
    assert field(None) == r"\N"
    assert field("\\N\t\r\n") == r"\\N\t\r\n"


def test_a_stream_of_indented_objects_is_cut_into_objects() -> None:
    lines = ["{\n", '    "a": {\n', '        "b": "}"\n', "    }\n", "}\n", "{\n", '    "a": 2\n', "}\n", "{\n"]
    assert list(objects(iter(lines))) == [{"a": {"b": "}"}}, {"a": 2}]


def test_a_stream_of_objects_in_a_line_each_is_cut_into_objects() -> None:
    assert list(objects(iter(['{"a":{"b":1}}\n', '{"a":2}\n']))) == [{"a": {"b": 1}}, {"a": 2}]


def version(complete: str = "False", **recipients: int) -> dict[str, Any]:
    """A version of a campaign."""
    conditions = [{"type": "Complete", "status": complete, "reason": "X", "message": ""}]
    return {"status": {"phase": "Sending", "recipients": recipients, "conditions": conditions}}


def test_following_ends_with_complete_and_counts_the_versions() -> None:
    line = Line(Console(quiet=True), 2)
    versions = iter([{}, version(planned=2, sent=1, remaining=1), version("True", planned=2, sent=2)])
    status, seen = follow(line, lambda _: next(versions), seconds=5)
    assert (status["recipients"]["sent"], seen) == (2, 3)


def test_following_refuses_a_sum_that_is_wrong_and_a_standstill() -> None:
    line = Line(Console(quiet=True), 2)
    with pytest.raises(SumError):
        follow(line, lambda _: version(planned=2, sent=1), seconds=5)
    with pytest.raises(LateError):
        follow(line, lambda _: None, seconds=5)


def test_a_status_in_a_line_tells_what_is_in_the_way() -> None:
    stalled = {"type": "Stalled", "status": "True", "reason": "RelayUnavailable", "message": "refused"}
    assert describe({"conditions": [stalled]}) == "Pending    RelayUnavailable: refused"
    limited = {"type": "Throttled", "status": "True", "reason": "RateLimit", "message": "1000/s"}
    assert describe({"conditions": [limited]}) == "Pending  "
    assert adds_up({"planned": 3, "sent": 1, "remaining": 2})
    assert not adds_up({"planned": 3, "sent": 1})
