"""`python -m faults`: the matrix of faults, on this machine."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time

from mailfleet_sender.contract.relay import Pipelining

from .report import last_line, line, write
from .rows import all_rows
from .runner import SEED, chosen, jobs, run_all
from .stage import PIPELINING


def main() -> int:
    """Run rows; exit status 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("rows", nargs="*", help="names, or beginnings with a star; none: all")
    parser.add_argument("--runs", type=int, help="of each row, instead of the row's own number")
    parser.add_argument("--no-defaults", action="store_true", help="without the runs at default settings")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="keep the results of other rows in the file")
    parser.add_argument("--first-failure", action="store_true", help="end at the first run that fails")
    parser.add_argument("--pipelining", choices=list(Pipelining), default=Pipelining.AUTO, help="the relay's setting")
    parser.add_argument("--list", action="store_true", help="the rows, and what they do")
    asked = parser.parse_args()
    if asked.list:
        for row in all_rows().values():
            print(f"{row.name:28} runs={row.runs + row.defaults:<3} {row.says}; bound: {row.bound}")
        return 0
    os.environ[PIPELINING] = asked.pipelining
    planned = jobs(chosen(asked.rows), runs=asked.runs, defaults=not asked.no_defaults, seed=asked.seed)
    began, results = time.monotonic(), []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    try:
        with contextlib.closing(run_all(planned, workers=asked.workers)) as coming:
            for result in coming:
                results.append(result)
                print(line(result), flush=True)
                if result.failed and asked.first_failure:
                    break
    finally:
        write(results, keep=asked.keep)
    print(f"{len({r.row for r in results})} rows in {time.monotonic() - began:.0f} s")
    for result in results:
        if result.failed:
            print(line(result))
    print(last_line(results))
    return int(any(r.failed for r in results) or len(results) < len(planned))


if __name__ == "__main__":
    sys.exit(main())
