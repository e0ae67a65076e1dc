"""Pages that are made from the code say what the code says; mend them with `make reference`."""

from __future__ import annotations

from reference import metrics


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
