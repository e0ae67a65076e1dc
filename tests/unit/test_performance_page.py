"""docs/performance.md is made from measured figures alone: each stands where it belongs, and nothing is made up."""

from __future__ import annotations

import json
import re
from string import Template
from typing import TYPE_CHECKING, Any

import page
import pytest
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = {
    "moment": "2026-11-29 08:00",
    "processor": "Abacus 3000",
    "processors": 2,
    "memory_gb": 8.1,
    "system": "Linux 6.1",
    "python": "3.11.7",
    "postgres": "15",
    "others": 0.01,
}
RATES = {
    "bullmq": 500, "go": 3_000, "sequential": 5_000, "grouped": 6_000, "pipelined": 9_000, "chunking": 12_000,
    "floor": 15_000,
}  # fmt: skip


def run(per_second: float, *, cpu_us: float = 90, right: bool = True) -> dict[str, Any]:
    return {
        "per_second": per_second, "cpu_us": cpu_us, "rss_mb": 81.2, "postgres_us": 9.5, "redis_us": 0.5, "sink_us": 31,
        "right": right, "lapsed": 0.25,
    }  # fmt: skip


def figures() -> dict[str, Any]:
    """What the benchmarks leave, made up and small."""
    near = {name: [run(rate * share) for share in (0.9, 1, 1.2)] for name, rate in RATES.items()}
    near |= {
        "pipelined+rate": [run(8_100, cpu_us=99)],
        "pipelined+tls": [run(7_200, cpu_us=111)],
        "pipelined+all": [run(4_500, cpu_us=181)],
    }
    far = {name: [run(rate / 10)] for name, rate in RATES.items()}
    bench = {
        "machine": MACHINE,
        "options": {"recipients": 20_000, "rounds": 3, "connections": 20},
        "peers": {"bullmq": "bullmq 1.2.3", "go": "smtppool v2"},
        "sweep": {"bullmq": {"1": 400.0, "4": 500.0}},
        "runs": {"0": near, "10": far},
    }
    ways = {
        name: {"batch": batch, "runs": [{"per_second": rate, "client_us": 7.0, "postgres_us": 9.0}]}
        for name, batch, rate in (("one INSERT a message", 1, 2_743.0), ("owned, batches of 500", 500, 37_111.0))
    }
    promise = {"of": "A changed rate.", "seen": "in force after 0.70 s", "holds": True}
    return {
        "bench": bench,
        "bench-ledger": {"machine": MACHINE, "ways": ways},
        "bench-render": {"machine": MACHINE, "microseconds": {"Composer": 20.0, "EmailMessage": 1_300.0}},
        "bench-limiter": {"machine": MACHINE, "promises": [promise, {**promise, "seen": "too late", "holds": False}]},
        "bench-plan": {
            "machine": MACHINE,
            "plans": [{"recipients": 1_000_000, "seconds": 3.61, "rss_mb": 77.0, "right": True}],
        },
        "bench-memory": {"machine": MACHINE, "peaks": [{"recipients": 5_000, "rss_mb": 78.1}]},
    }


def row(text: str, first: str) -> list[str]:
    """The cells of the only row that begins so."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_last_line_and_the_goals_are_those_of_the_medians() -> None:
    text = page.page(figures())
    assert "bench: pipelined=18.0x sequential=10.0x go=3.0x floor=60% cpu_us=90 rss_mb=81\n" in text
    assert "rate: pipelined+rate=16.2x go=2.7x floor=54% cpu_us=99 rss_mb=81\n" in text
    assert row(text, "pipelined, times BullMQ") == ["pipelined, times BullMQ", "18.00", "at least 15", "yes"]
    assert row(text, "at 10 ms: pipelined, times Go")[1:] == ["3.00", "at least 3", "yes"]
    assert row(text, "CPU us a message")[1:] == ["90.00", "below 100", "yes"]


def test_a_goal_that_is_missed_says_so() -> None:
    measured = figures()
    measured["bench"]["runs"]["0"]["pipelined"] = [run(7_000, cpu_us=101)]
    text = page.page(measured)
    assert row(text, "pipelined, times BullMQ")[1:] == ["14.00", "at least 15", "**no**"]
    assert row(text, "CPU us a message")[-1] == "**no**"


def test_a_senders_row_has_its_median_its_rounds_and_its_ratios() -> None:
    near = page.page(figures()).partition("away\n")[0]
    assert row(near, "`chunking`")[:6] == ["`chunking`", "12,000", "10,800 to 14,400", "24.0", "4.0", "90"]


def test_a_peer_that_was_hindered_makes_the_run_void() -> None:
    text = page.page(figures())
    assert row(text, "bullmq")[2:] == ["500", "589", "85%", "yes"]
    measured = figures()
    measured["bench"]["runs"]["0"]["bullmq"] = [run(400)]
    assert row(page.page(measured), "bullmq")[2:] == ["400", "589", "68%", "**void**"]


def test_each_feature_has_its_price_beside_the_plain_sender() -> None:
    features = page.features(page.read(figures()["bench"]))
    assert row(features, "`pipelined+tls`")[1:] == ["-20%", "+21", "0.25"]
    assert row(features, "`pipelined+all`")[1:] == ["-50%", "+91", "0.25"]


def test_the_other_benchmarks_are_there() -> None:
    text = page.page(figures())
    assert row(text, "owned, batches of 500")[1:] == ["500", "37,111", "7.0", "9.0"]
    assert row(text, "EmailMessage")[1:] == ["1,300.0", "769"]
    assert row(text, "1,000,000")[1:] == ["3.6", "77", "right"]
    assert row(text, "5,000")[1:] == ["78.1"]
    assert "| too late | **no** |" in text
    assert "2 x Abacus 3000" in text


def test_a_machine_that_others_used_is_named_on_the_page() -> None:
    assert "measure again" not in page.page(figures())
    measured = figures()
    measured["bench-plan"]["machine"] = {**MACHINE, "others": 0.4}
    assert "before `make bench-plan`: measure again" in page.page(measured)


def test_the_template_holds_no_figure_of_its_own_and_uses_each_value() -> None:
    template = page.TEMPLATE.read_text(encoding="utf-8")
    assert not re.findall(r"[\d.,]+ ?(?:%|us\b|ms/|MB|x\b|messages/s|rows/s)", template)
    names = Template(template).get_identifiers()  # type: ignore[attr-defined]
    assert len(names) == len(set(names))
    assert "$" not in page.page(figures())


@given(st.lists(st.floats(0.5, 1e7), min_size=1, max_size=12))
def test_a_chart_has_a_bar_for_each_name_and_an_axis_that_holds_them_all(values: list[float]) -> None:
    text = page.chart("title", "axis", [(f"n{i}", value) for i, value in enumerate(values)])
    ((names, top, bars),) = re.findall(r"x-axis \[(.*)\]\n.*0 --> (\S+)\n  bar \[(.*)\]", text)
    assert not set(f"{top}{bars}") - set("0123456789., ")
    assert len(names.split(", ")) == len(bars.split(", ")) == len(values)
    assert all(
        float(bar) == pytest.approx(value, rel=0.01) for bar, value in zip(bars.split(", "), values, strict=True)
    )
    assert max(values) <= float(top) <= 2.01 * max(values)


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results; the page is written beside."""
    monkeypatch.setattr(page, "PAGE", tmp_path / "performance.md")
    for name, document in figures().items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    monkeypatch.setattr("sys.argv", ["page.py", str(tmp_path)])
    return tmp_path


def test_the_command_writes_the_page(left: Path) -> None:
    assert page.main() == 0
    assert page.PAGE.read_text(encoding="utf-8") == page.page(figures())


def test_without_all_results_it_says_which_command_to_run(left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (left / "bench-ledger.json").unlink()
    assert page.main() == 1
    assert "run `make bench-ledger` first" in capsys.readouterr().out
    assert not page.PAGE.exists()


def test_no_page_is_made_of_a_run_in_which_something_was_wrong(left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = figures()["bench"]
    measured["runs"]["10"]["go"] = [run(300, right=False)]
    (left / "bench.json").write_text(json.dumps(measured))
    assert page.main() == 1
    assert "go at 10 ms" in capsys.readouterr().out
    assert not page.PAGE.exists()
