"""The results as a person reads them, and as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from .judge import Result

if TYPE_CHECKING:
    from collections.abc import Iterable

RESULTS = Path("build/faults.json")


def line(result: Result) -> str:
    """One run."""
    recovered = "-" if result.recovered_seconds is None else f"{result.recovered_seconds:.1f}s"
    limit = "" if result.to_recover_seconds is None else f"<={result.to_recover_seconds:.1f}s"
    more = " ".join(f"{name}={value:g}" for name, value in result.figures.items())
    return (
        f"{'FAILED' if result.failed else 'ok':6} {result.row:26} {result.policy:6} seed={result.seed}"
        f"{' defaults' if result.defaults else ''} planned={result.planned} accepted={result.accepted}"
        f" lost={result.lost} duplicates={result.duplicates} explained={result.explained}"
        f" unexplained={result.unexplained} uncertain={result.uncertain} bound={result.bound}"
        f" recovered={recovered}{limit} samples={result.samples} took={result.seconds:.1f}s {more}"
        + (f"\n       {result.problem}" if result.problem else "")
    ).rstrip()


def last_line(results: list[Result]) -> str:
    """The one that acceptance reads."""
    failed = sum(r.failed for r in results)
    return (
        f"faults: runs={len(results)} lost={sum(r.lost for r in results)}"
        f" unexplained_duplicates={sum(r.unexplained for r in results)} over_bound={sum(r.over_bound for r in results)}"
        + (f" failed={failed}" if failed else "")
    )


def write(results: Iterable[Result], *, keep: bool) -> None:
    """Write the results' file; with `keep`, those of other rows that are in it stay."""
    results = list(results)
    old = read() if keep else []
    ours = {r.row for r in results}
    RESULTS.parent.mkdir(exist_ok=True)
    kept = [r for r in old if r.row not in ours] + results
    RESULTS.write_text(json.dumps([r.as_json() for r in kept], indent=1) + "\n")


def read() -> list[Result]:
    """What the file holds."""
    if not RESULTS.exists():
        return []
    return [Result(**entry) for entry in json.loads(RESULTS.read_text())]
