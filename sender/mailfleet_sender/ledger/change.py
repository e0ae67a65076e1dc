"""One write of an owner, as a value: so that it can be repeated, exactly, until its fate is known."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from mailfleet_sender.contract.accounts import OutcomeKind

from .positions import EMPTY, Positions
from .suppression import add_bounced
from .usage import add_usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from .statements import RangeState
    from .values import Outcome

REPLY_LENGTH = 1_000
"""Characters of a relay's reply that are kept."""

RECORDABLE = frozenset(
    {
        OutcomeKind.SENT,
        OutcomeKind.FAILED,
        OutcomeKind.SUPPRESSED,
        OutcomeKind.SKIPPED,
        OutcomeKind.DEFERRED,
        OutcomeKind.UNCERTAIN,
    }
)
"""What an owner may record; only closing a range makes somebody `cancelled`."""

_COPY = (
    "COPY delivery (run, range, pos, key, attempt, outcome, code, enhanced, reply, relay_queue_id, address_hash)"
    " FROM STDIN"
)
COPY_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": None})

_INSERT_DOUBT = text("""
INSERT INTO doubt (range, pos, key)
SELECT :range, p, k FROM unnest(CAST(:positions AS int[]), CAST(:keys AS text[])) AS t (p, k)
""")
_INSERT_DEFERRAL = text("""
INSERT INTO deferral (range, pos, run, key, attempt, since, due_at)
SELECT :range, p, :run, k, a, coalesce(s, clock_timestamp()), clock_timestamp() + d * interval '1 second'
FROM unnest(CAST(:positions AS int[]), CAST(:keys AS text[]), CAST(:attempts AS smallint[]),
            CAST(:since AS timestamptz[]), CAST(:delays AS int[])) AS t (p, k, a, s, d)
""")
_INSERT_LATE = text("""
INSERT INTO late_outcome (range, pos, key, outcome, attempt, code, enhanced, reply, relay_queue_id, address_hash)
VALUES (:range, :pos, :key, :outcome, :attempt, :code, :enhanced, :reply, :relay_queue_id, :address_hash)
ON CONFLICT DO NOTHING
""")


@dataclass(frozen=True, slots=True)
class Change:
    """What one write does to the sets of a range, and the outcomes that it writes.

    Attributes:
        position: the cursor afterwards.
        now, wait: positions the cursor passes that become open, or returned.
        taken: of `now`, those that were returned.
        one: the position that is sent once more, from resend to resending; late outcomes are absorbed before.
        done: positions of open or resending that have an outcome now.
        again: of the uncertain ones, those that are sent once more.
        doubt: the uncertain ones that are not.
        outcomes: rows for delivery: of `done`, and those that the cursor passes already decided.
    """

    position: int
    now: Positions = EMPTY
    wait: Positions = EMPTY
    taken: Positions = EMPTY
    one: Positions = EMPTY
    done: Positions = EMPTY
    again: Positions = EMPTY
    doubt: tuple[Outcome, ...] = ()
    outcomes: tuple[Outcome, ...] = ()

    def parameters(self) -> dict[str, Any]:
        """What `statements.CAS` needs of it."""
        count = Counter(o.kind for o in self.outcomes)
        sets = {name: str(getattr(self, name)) for name in ("now", "wait", "taken", "done", "again")}
        return {"pos": self.position, **sets, **{kind.value: count[kind] for kind in RECORDABLE}}

    def finishes(self, before: RangeState, planned: int) -> bool:
        """Whether a range that was as `before` may owe nothing afterwards (late outcomes may settle any `resend`)."""
        return (
            self.position == planned
            and not (before.open | self.now) - self.done
            and not (before.returned | self.wait) - self.taken
            and (bool(self.one) or not (before.resend | self.again | before.resending - self.done))
        )

    def write(self, connection: Connection, run: int, range_id: int, account: str | None) -> None:
        """Write the rows that belong to it besides its outcomes, after the compare and set has hit."""
        if self.doubt:
            connection.execute(
                _INSERT_DOUBT,
                {
                    "range": range_id,
                    "positions": [o.position for o in self.doubt],
                    "keys": [o.key or None for o in self.doubt],
                },
            )
        deferred = [o for o in self.outcomes if o.kind is OutcomeKind.DEFERRED]
        if deferred:
            connection.execute(
                _INSERT_DEFERRAL,
                {
                    "range": range_id,
                    "run": run,
                    "positions": [o.position for o in deferred],
                    "keys": [o.key or None for o in deferred],
                    "attempts": [o.attempt for o in deferred],
                    "since": [o.since for o in deferred],
                    "delays": [o.retry_after_seconds or 0 for o in deferred],
                },
            )
        add_usage(connection, account, range_id, sum(o.handed_over for o in self.outcomes))
        add_bounced(connection, run, _bounced(self.outcomes))


def copy_outcomes(connection: Connection, run: int, range_id: int, outcomes: Sequence[Outcome]) -> None:
    """COPY rows into delivery: a tenth of what INSERT costs."""
    if not outcomes:
        return
    place = f"{run}\t{range_id}\t"
    lines = "".join(
        f"{place}{o.position}\t{_field(o.key or None)}\t{o.attempt}\t{o.kind}\t{_field(o.code)}"
        f"\t{_field(o.enhanced)}\t{_field(o.reply and o.reply[:REPLY_LENGTH])}\t{_field(o.relay_queue_id)}"
        f"\t{_octets(o.address_hash)}\n"
        for o in outcomes
    )
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        cursor.copy_expert(_COPY, io.StringIO(lines), size=len(lines))  # after each piece it waits for the interpreter


def _field(value: str | None) -> str:
    """One field of COPY's text format. Replies are the relay's bytes: nothing in them may break the COPY."""
    if value is None:
        return "\\N"
    if value.isascii() and value.isprintable() and "\\" not in value:
        return value
    return _encodable(value).translate(COPY_ESCAPES)


def _octets(value: bytes | None) -> str:
    return "\\N" if value is None else f"\\\\x{value.hex()}"


def _encodable(value: str) -> str:
    return value.encode("utf-8", "replace").decode() if not value.isascii() else value


def _bounced(outcomes: Sequence[Outcome]) -> list[bytes]:
    return [o.address_hash for o in outcomes if o.suppress and o.address_hash]


def insert_late(connection: Connection, run: int, range_id: int, outcomes: Sequence[Outcome]) -> None:
    """Leave what a fenced sender knows for sure; what had been recorded after all is dropped by ABSORB.

    An address that does not exist is suppressed whoever owns the range. Usage was counted by the takeover.
    """
    rows = [
        {
            "range": range_id,
            "pos": o.position,
            "key": o.key or None,
            "outcome": o.kind.value,
            "attempt": o.attempt,
            "code": o.code,
            "enhanced": o.enhanced,
            "reply": o.reply and _encodable(o.reply[:REPLY_LENGTH]).replace("\0", ""),
            "relay_queue_id": o.relay_queue_id,
            "address_hash": o.address_hash,
        }
        for o in outcomes
        if o.kind in {OutcomeKind.SENT, OutcomeKind.FAILED}
    ]
    if rows:
        connection.execute(_INSERT_LATE, rows)
    add_bounced(connection, run, _bounced(outcomes))
