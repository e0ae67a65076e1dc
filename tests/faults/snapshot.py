"""How much slower a range's updates become while somebody holds a snapshot open: no old version of its row may go."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import psycopg2

from ledgers import Desk, claim, outcomes

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailfleet_sender.ledger import OwnedRange

    from .scene import Scene

KEYS_A_PAIR = 2
PAIRS, PAIRS_OF_TEN_MINUTES = 2_000, 12_000
"""Claims with their records: 12,000 are ten minutes of a sender that does 20 of each a second."""
SAMPLE = 200
SLOWER = 2.0


def held(pairs: int) -> Callable[[Scene], None]:
    """Claim and record `pairs` times under a held snapshot; the last 200 against 200 before it. Then the run itself."""

    def opening(scene: Scene) -> None:
        with Desk(scene.fleet.ledger_url, keys=(pairs + SAMPLE) * KEYS_A_PAIR, range_size=10**9) as desk:
            owned = desk.own()
            before = [_pair(owned) for _ in range(SAMPLE)]
            snapshot = psycopg2.connect(scene.fleet.ledger_url)
            snapshot.set_session(isolation_level="REPEATABLE READ")
            with snapshot.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM range")
            during = [_pair(owned) for _ in range(pairs)]
            snapshot.close()
        usual, slowed = statistics.median(before), statistics.median(during[-SAMPLE:])
        scene.figures |= {"pairs": pairs, "before_ms": round(usual * 1000, 2), "held_ms": round(slowed * 1000, 2)}
        scene.figures["times_slower"] = round(slowed / usual, 2)
        assert slowed < usual * SLOWER, f"claims and records became {slowed / usual:.1f} times slower"
        scene.start()

    return opening


def _pair(owned: OwnedRange) -> float:
    began = time.perf_counter()
    owned.record(outcomes(owned, claim(owned, KEYS_A_PAIR)))
    return time.perf_counter() - began
