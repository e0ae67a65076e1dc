"""Pages that are made from the code say what the code says; mend them with `make reference`."""

from __future__ import annotations

import pytest

from mailfleet_operator import plan, status
from mailfleet_operator.conditions import Type
from reference import describe, metrics


def test_the_page_of_metrics_is_what_the_registries_say() -> None:
    assert metrics.PAGE.read_text() == metrics.page()


def test_every_metric_says_its_labels_and_what_it_is() -> None:
    rows = [line for line in metrics.page().splitlines() if line.startswith("| `")]
    assert len(rows) > 35
    for row in rows:
        _, name, kind, _labels, what, _ = (cell.strip() for cell in row.split("|"))
        assert name.startswith("`mailfleet_")
        assert kind in {"gauge", "counter", "histogram"}
        assert what.endswith(".")


def test_the_page_of_states_is_what_the_operator_says() -> None:
    assert describe.PAGE.read_text() == describe.page()


@pytest.mark.parametrize("title", describe.states())
def test_a_state_reads_as_an_explanation(title: str) -> None:
    o = describe.states()[title]
    said = status.of_campaign(o, plan.plan(o))
    telling = [c for c in said["conditions"] if c["status"] == "True" or not c["reason"].startswith("Not")]
    assert telling, "something is true, or its reason is named"
    assert all(len(c["message"].split()) > 1 for c in telling if c["type"] != Type.COMPLETE)
    assert said["phase"]
