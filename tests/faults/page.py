"""`python -m faults.page`: docs/reliability.md, from what `make faults` and `make faults-guards` left in build/."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from . import guards as guards_module
from .judge import SHARE
from .report import RESULTS, last_line, read
from .rows import FAMILIES, all_rows
from .scene import CONNECTIONS, DEFAULTS, RANGE, RATE, RECIPIENTS, SCALED

if TYPE_CHECKING:
    from .judge import Result
    from .rows import Row
    from .scene import Timing

PAGE = Path("docs/reliability.md")
TEMPLATE = Path(__file__).parent / "page.md"


@dataclass(frozen=True)
class Sums:
    """Runs of one row, added up."""

    row: Row
    runs: list[Result]

    def line(self) -> str:
        """One row of the table."""
        r = self.runs
        recovered = [x.recovered_seconds for x in r if x.recovered_seconds is not None and not x.defaults]
        usual = [x.recovered_seconds for x in r if x.recovered_seconds is not None and x.defaults]
        worst = max(r, key=lambda x: (x.uncertain - x.bound, x.uncertain))
        cells = [
            f"`{self.row.name}`", self.row.says, len(r), sum(x.planned for x in r), sum(x.accepted for x in r),
            sum(x.lost for x in r), sum(x.duplicates for x in r), sum(x.unexplained for x in r),
            f"{worst.uncertain} of {worst.bound}", _seconds(recovered), _seconds(usual), sum(x.failed for x in r) or "",
        ]  # fmt: skip
        return f"| {' | '.join(map(str, cells))} |"


def _seconds(values: list[float]) -> str:
    return f"{max(values):.1f}" if values else ""


def _table(results: list[Result]) -> list[str]:
    head = ["row", "what is done", "runs", "planned", "accepted", "lost", "duplicates", "unexplained",
            "uncertain of bound, worst", "recovered, s", "with defaults, s", "failed"]  # fmt: skip
    rows = all_rows()
    named = {row.name for family in FAMILIES.values() for row in family}
    lines = []
    for title, names in (*((f, [r.name for r in rows_]) for f, rows_ in FAMILIES.items()),
                         ("two at once", [n for n in rows if n not in named])):  # fmt: skip
        sums = [Sums(rows[n], runs) for n in names if (runs := [r for r in results if r.row == n])]
        if sums:
            lines += ["", f"### {title.capitalize()}", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
            lines += [s.line() for s in sums]
    return lines


def _bounds(results: list[Result]) -> list[str]:
    rows = all_rows()
    bounds: dict[str, list[str]] = {}
    for name in dict.fromkeys(r.row for r in results):
        if name in rows and "+" not in name:
            bounds.setdefault(rows[name].bound, []).append(f"`{name}`")
    return [f"- {bound}: {', '.join(names)}" for bound, names in bounds.items()]


def _guards(found: list[dict[str, Any]]) -> list[str]:
    lines = ["| guard | what it is there for | what fails without it | caught |", "|---|---|---|---|"]
    lines += [f"| {g['guard']} | {g['says']} | {g['catcher']} | {'yes' if g['caught'] else '**no**'} |" for g in found]
    return lines


def page(results: list[Result], guards: list[dict[str, Any]]) -> str:
    """The page as text."""
    failed = [r for r in results if r.failed]
    verdict = (
        f"{len(failed)} of these runs FAILED: {', '.join(sorted({r.row for r in failed}))}."
        if failed
        else "The sum of the books was looked at all along, and held each time."
    )
    values = {
        "last_line": last_line(results),
        "guards_line": f"guards: removed={len(guards)} caught={sum(bool(g['caught']) for g in guards)}",
        "rows": len({r.row for r in results}),
        "runs": len(results),
        "default_runs": sum(r.defaults for r in results),
        "people": f"{sum(r.planned for r in results):,}",
        "minutes": f"{sum(r.seconds for r in results) / 60:.0f}",
        "samples": f"{sum(r.samples for r in results):,}",
        "verdict": verdict,
        "recipients": f"{RECIPIENTS:,}",
        "range": RANGE,
        "rate": RATE,
        "connections": CONNECTIONS,
        "scaled": _settings(SCALED),
        "defaults": _settings(DEFAULTS),
        "share": SHARE,
        "bounds": "\n".join(_bounds(results)),
        "tables": "\n".join(_table(results)).lstrip(),
        "guards": "\n".join(_guards(guards)),
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values)


def _settings(timing: Timing) -> str:
    return f"lease {timing.lease:g} s, margin {timing.margin:g} s, idle {timing.idle:g} s, lock {timing.lock:g} s"


def main() -> int:
    """Write the page; exit status 1 if there are no results to write it from."""
    results = read()
    guards = json.loads(guards_module.RESULTS.read_text(encoding="utf-8")) if guards_module.RESULTS.exists() else []
    if not results or not guards:
        print(f"run `make faults` and `make faults-guards` first: {RESULTS} or {guards_module.RESULTS} is missing")
        return 1
    PAGE.write_text(page(results, guards), encoding="utf-8")
    print(f"{PAGE}: {last_line(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
