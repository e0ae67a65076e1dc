"""200 campaigns at once: how soon each is looked at, what the operator needs, and what it asks of the API server.

usage: many.py [--campaigns 200] [--seconds 60]
tests/many_campaigns.py says how; tests/api/test_many.py holds the same for fewer seconds. The exit status says
whether the promises hold: each campaign reconciled within 10 s, resident memory below 250 MB, at most 20 requests a
campaign and minute, and no LIST and no GET in the ticks.
Writes build/bench-many.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from measuring import machine, save
from programs import HERE

sys.path[:0] = [str(HERE.parent / part) for part in ("tests", "deploy/sink", "deploy/cluster")]

from many_campaigns import broken, measure, operator_of_many  # noqa: E402


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--campaigns", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        operator_of_many(Path(folder), options.campaigns) as (many, operator),
    ):
        result = measure(many, operator, options.seconds)
        log = operator.log.read_text()
    print(json.dumps(result, indent=2))
    save("bench-many", {"machine": machine(), **result})
    failed = broken(result)
    if "Traceback" in log:
        failed.append(f"the operator's log has no traceback: {log[log.index('Traceback') :][:1500]}")
    sys.exit("\n".join(f"does not hold: {words}" for words in failed) or 0)


if __name__ == "__main__":
    main()
