"""What if a guard were not there: each is cut out of a copy of the sender, and something must fail.

`python -m faults.guards` makes the copies outside of the checkout. What catches a removal is a row of the matrix, or
a test of two real connections against real Postgres that is made to meet exactly there; it passes with the guard.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .patched import Cut, copy_package

CHECKOUT = Path(__file__).parents[2]
RESULTS = Path("build/guards.json")
FAILED = 1
"""Exit status of pytest and of `python -m faults` when something failed; another one is a mistake of ours."""
SECONDS = 600


class GuardError(RuntimeError):
    """What is to catch a removal fails with all guards in place."""


@dataclass(frozen=True)
class Guard:
    """One guard.

    Attributes:
        name: as issue and page call it.
        says: what it is there for.
        cuts: what removes it.
        row: of the matrix, which catches that; or
        test: a node of pytest's.
        runs: of the row, at most.
    """

    name: str
    says: str
    cuts: tuple[Cut, ...]
    row: str | None = None
    test: str | None = None
    runs: int = 3

    @property
    def catcher(self) -> str:
        """For people."""
        return f"row {self.row}" if self.row else f"test {str(self.test).rpartition('::')[2]}"


STATEMENTS, OWNER, LOOP = "ledger/statements.py", "ledger/owner.py", "delivery/loop.py"
CONNECTION, PLANNER, CHANGE = "ledger/connection.py", "ledger/planner.py", "ledger/change.py"
TAKEOVER = "tests/integration/test_ledger_takeover.py::"
COMMITS = "tests/integration/test_ledger_commits.py::"
PLAN = "tests/integration/test_ledger_plan.py::"

GUARDS = (
    Guard(
        "claim before send", "nothing is sent before its claim is committed",
        (Cut(LOOP, "        await self._write_claim(taken)\n        return [c for c in",
             "        asyncio.ensure_future(self._write_claim(taken))\n        return [c for c in"),),
        row="kill-in-claim",
    ),
    Guard(
        "permit before claim", "no more is claimed than may be sent now, so a kill leaves little in doubt",
        (Cut(LOOP, "        want = min(self._appetite.want, sum(ready.values()))",
             "        if self._reader.sendable:\n"
             "            self._claimed.extend(await self._claim({ANY: self._reader.sendable}))\n"
             "        want = min(self._appetite.want, sum(self._ready().values()))"),),
        row="kill",
    ),
    Guard(
        "epoch", "a takeover begins a new epoch: whoever wrote before is fenced",
        (Cut(STATEMENTS, "UPDATE range SET epoch = epoch + 1, seq = seq + 1, owner = CAST(:owner AS uuid)",
             "UPDATE range SET seq = seq + 1, owner = CAST(:owner AS uuid)"),),
        test=TAKEOVER + "test_settling_waits_for_a_drain_and_then_changes_nothing_but_the_epoch",
    ),
    Guard(
        "seq", "each write happens once, however often it is tried",
        (Cut(STATEMENTS, "epoch = :epoch AND seq = :seq AND owner", "epoch = :epoch AND owner", 2),),
        test=COMMITS + "test_outcomes_are_recorded_once",
    ),
    Guard(
        "owner", "two takeovers that reach the same epoch and seq are told apart",
        (Cut(STATEMENTS, " AND owner = :owner AND state", " AND state", 3),
         Cut(OWNER, "and (row.owner == self.owner or (ends and not row.owner))", "and True"),
         Cut(OWNER, "row.seq == self.seq and row.owner == self.owner and", "row.seq == self.seq and"),),
        test=TAKEOVER + "test_a_twin_with_the_same_epoch_and_seq_is_told_by_its_owner",
    ),
    Guard(
        "state = Open", "a range that has ended is not taken, settled or closed again",
        (Cut(STATEMENTS, "WHERE r.id = :range AND r.state = 'Open'", "WHERE r.id = :range"),),
        test="tests/integration/test_ledger_ended.py::test_an_ended_range_is_not_taken_settled_or_closed_again",
    ),
    Guard(
        "lock before read at takeover", "claims and outcomes are read after the row is locked, never before",
        (Cut(STATEMENTS, "\nFOR UPDATE OF r\n", "\n"),),
        test=TAKEOVER + "test_a_takeover_that_waits_for_an_outcome_finds_nothing_uncertain",
    ),
    Guard(
        "lease", "nobody is taken over while his lease holds",
        (Cut(STATEMENTS, "AND (r.lease_until IS NULL OR", "AND (true OR r.lease_until IS NULL OR"),),
        row="twins",
    ),
    Guard(
        "unknown-commit reading", "after a COMMIT without an answer the row is read before anything is repeated",
        (Cut(OWNER, "            self.seq, self.state = row.seq, RangeState.read(row)\n",
             "            self.seq, self.state = row.seq, RangeState.read(row)\n            return False\n"),),
        row="commit-record-after",
    ),
    Guard(
        "late outcomes", "a fenced sender leaves what it knows to whoever settles the doubt",
        (Cut(CHANGE, "    if rows:\n        connection.execute(_INSERT_LATE, rows)", "    if rows:\n        return"),),
        test=TAKEOVER + "test_an_outcome_that_waits_for_a_takeover_is_fenced_and_absorbed_later",
    ),
    Guard(
        "one-at-a-time re-send", "a row that kills its sender takes nobody with it",
        (Cut(OWNER, "if self.open or self.resending or one - self.resend:", "if one - self.resend:"),),
        test=TAKEOVER + "test_under_resend_each_doubt_is_sent_once_more_one_at_a_time",
    ),
    Guard(
        "synchronous_commit", "what was acknowledged survives the server's kill -9, whatever its default",
        (Cut(CONNECTION, "SET LOCAL synchronous_commit = on;", "SET LOCAL synchronous_commit = off;"),),
        row="postgres-kill",
    ),
    Guard(
        "transaction timeouts", "a sender that freezes inside its transaction does not keep its range",
        (Cut(CONNECTION, "idle_in_transaction_session_timeout = {_milliseconds(timing.idle_seconds)}",
             "idle_in_transaction_session_timeout = 0"),),
        row="stop-claim",
    ),
    Guard(
        "plan number", "of two plans the newer alone is published",
        (Cut(PLANNER, "                    run.c.plan_wanted == plan.number,\n", ""),),
        test=PLAN + "test_of_two_planners_the_newer_alone_publishes",
    ),
)  # fmt: skip


def _copy(guard: Guard | None, folder: Path) -> Path:
    """The sender without a guard (None: with all), in a folder of its own."""
    name = (guard.name if guard else "whole").replace(" ", "-").replace("=", "")
    return copy_package(folder / name, *(guard.cuts if guard else ()))


def _run(sender: Path, *, rows: list[str], tests: list[str], runs: int) -> tuple[int, str]:
    """Rows or tests with this copy of the sender; exit status and the last words."""
    beside = ("operator", "deploy/sink", "deploy/cluster", "deploy/demo", "tests")
    path = [str(sender), *(str(CHECKOUT / p) for p in beside)]
    if rows:
        asked = ["--runs", str(runs), "--no-defaults", "--first-failure"]
        command = [sys.executable, "-m", "faults", *rows, *asked]
    else:
        where = ["-c", str(CHECKOUT / "pyproject.toml"), "--rootdir", str(CHECKOUT)]
        asked = ["-q", "-x", "-p", "no:cacheprovider", *where, "-o", f"pythonpath={' '.join(path)}"]
        command = [sys.executable, "-m", "pytest", *asked, *(str(CHECKOUT / t) for t in tests)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        command, cwd=sender, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        try:
            output, _ = child.communicate(timeout=SECONDS)
        except BaseException:
            child.terminate()  # it puts its servers away
            raise
    return child.returncode, output


def _why(output: str) -> str:
    """The line that says what failed."""
    lines = output.splitlines()
    for n, line in enumerate(lines):
        if line.startswith("FAILED"):
            return " ".join(line.split() + (lines[n + 1].split() if n + 1 < len(lines) else []))[:300]
    return lines[-1] if lines else ""


def confirm(guards: list[Guard], folder: Path, *, runs: int) -> None:
    """Everything that is to catch something passes with all guards in place.

    Raises:
        GuardError: it does not.
    """
    whole = _copy(None, folder)
    rows = sorted({g.row for g in guards if g.row})
    tests = sorted({g.test for g in guards if g.test})
    for some in ({"rows": rows, "tests": []}, {"rows": [], "tests": tests}):
        if not (some["rows"] or some["tests"]):
            continue
        code, output = _run(whole, **some, runs=runs)
        if code:
            raise GuardError(f"with all guards in place {some} fails (exit {code}):\n{output[-3000:]}")


def remove(guard: Guard, folder: Path) -> dict[str, object]:
    """Cut one guard out and see what its catcher says."""
    code, output = _run(
        _copy(guard, folder), rows=[guard.row] if guard.row else [], tests=[guard.test] if guard.test else [],
        runs=guard.runs,
    )  # fmt: skip
    why = _why(output)
    caught = code == FAILED and ("FAILED" in output)
    print(f"{'caught' if caught else 'MISSED'} {guard.name} -> {guard.catcher}: {why}", flush=True)
    return {"guard": guard.name, "says": guard.says, "catcher": guard.catcher, "caught": caught, "why": why}


def _keep(found: list[dict[str, object]]) -> None:
    """Write the results' file; what it says of other guards of the table stays."""
    old = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    known = {entry["guard"]: entry for entry in [*old, *found]}
    RESULTS.parent.mkdir(exist_ok=True)
    kept = [known[guard.name] for guard in GUARDS if guard.name in known]
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Remove guards, one copy each; exit status 1 unless each removal is caught."""
    parser = argparse.ArgumentParser(prog="python -m faults.guards", description=__doc__)
    parser.add_argument("names", nargs="*", help="guards; none: all")
    parser.add_argument("--no-confirm", action="store_true", help="do not run the catchers with all guards first")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    guards = [g for g in GUARDS if not asked.names or g.name in asked.names]
    with tempfile.TemporaryDirectory(prefix="mailfleet-guards-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for guard in guards:  # the whole table fits before anything is run
            shutil.rmtree(_copy(guard, folder))
        if not asked.no_confirm:
            confirm(guards, folder, runs=2)
            print("with all guards in place every catcher passes", flush=True)
        found = []
        for guard in guards:
            found.append(remove(guard, folder))
            _keep(found)
    print(f"guards: removed={len(found)} caught={sum(bool(f['caught']) for f in found)}")
    return int(not all(f["caught"] for f in found))


if __name__ == "__main__":
    sys.exit(main())
