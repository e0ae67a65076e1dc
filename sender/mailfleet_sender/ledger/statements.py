"""The statements that must be exact (LEDGER section 4), and the few functions that run them in order.

All of them work inside a transaction of the caller, isolation READ COMMITTED, that began with
`connection.settings_of`. Lock order: range, then run.
"""

# ruff: noqa: S608 - what is put into these statements is constants of this package, values are bound

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from mailfleet_sender.contract.campaign import OnUncertain

from .positions import EMPTY, Positions
from .tables import COUNTERS
from .usage import add_usage
from .values import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from .values import Timing

SENDER_LOST = "SenderLost"
"""`delivery.code` of what a predecessor claimed and left without an outcome."""

STATE = "range.ctid::text, pos, open::text, returned::text, resend::text, resending::text"

# The first statement of every write of an owner: compare and set. Each write is a case of this one:
#   claim           pos, open + now, returned + wait, and the counters of rows already decided
#   claim returned  open + now, returned - taken
#   record          open - done, resending - done, the counters; what is lost under Resend also to resend
# Positions that are not where they are said to be break CHECK range_sum.
_CAS = """
UPDATE range SET seq = seq + 1, lease_until = clock_timestamp() + :lease * interval '1 second',
    pos = :pos,
    open = open + CAST(:now AS int4multirange) - CAST(:done AS int4multirange),
    returned = returned + CAST(:wait AS int4multirange) - CAST(:taken AS int4multirange),
    resend = resend + CAST(:again AS int4multirange),
    resending = resending - CAST(:done AS int4multirange),
    sent = sent + :sent, failed = failed + :failed, suppressed = suppressed + :suppressed,
    skipped = skipped + :skipped, deferred = deferred + :deferred,
    uncertain = uncertain + :uncertain - width(resending * CAST(:done AS int4multirange))
WHERE id = :range AND epoch = :epoch AND seq = :seq AND owner = :owner AND state = 'Open'
"""
CAS = text(f"{_CAS} RETURNING {STATE}")
# The same, at the place where the owner's last write has put the row. While somebody holds a snapshot open, no older
# version of the row can go, and a search by id would look at each of them.
CAS_IN_PLACE = text(f"{_CAS} AND ctid = CAST(:place AS tid) RETURNING {STATE}")

DRAIN = text(f"""
UPDATE range SET seq = seq + 1, returned = returned + open, resend = resend + resending,
    open = '{{}}', resending = '{{}}', owner = NULL, lease_until = NULL
WHERE id = :range AND epoch = :epoch AND seq = :seq AND owner = :owner AND state = 'Open'
RETURNING {STATE}
""")

# After the compare and set and ABSORB: a position that a late outcome has settled is not claimed.
CLAIM_RESEND = text(f"""
UPDATE range SET resend = resend - CAST(:one AS int4multirange),
    resending = resending + resend * CAST(:one AS int4multirange)
WHERE id = :range RETURNING {STATE}
""")

RENEW = text(f"""
UPDATE range SET lease_until = clock_timestamp() + :lease * interval '1 second'
WHERE id = :range AND epoch = :epoch AND owner = :owner AND state = 'Open'
RETURNING {STATE}
""")

INQUIRE = text(f"SELECT epoch, seq, owner, state, {STATE} FROM range WHERE id = :range")

_LOCK_TO_TAKE = text("""
SELECT r.run, r.account, r.open::text AS open, r.resending::text AS resending, u.on_uncertain
FROM range r JOIN run u ON u.id = r.run
WHERE r.id = :range AND r.state = 'Open'
  AND (r.lease_until IS NULL OR r.lease_until < clock_timestamp() OR :fence
       OR r.lease_until > clock_timestamp() + :horizon * interval '1 second' OR r.owner = CAST(:owner AS uuid))
FOR UPDATE OF r
""")

_TAKE = text("""
UPDATE range SET epoch = epoch + 1, seq = seq + 1, owner = CAST(:owner AS uuid),
    lease_until = CASE WHEN CAST(:owner AS uuid) IS NULL THEN NULL
                       ELSE clock_timestamp() + :lease * interval '1 second' END,
    uncertain = uncertain + width(open), resend = resend + CAST(:again AS int4multirange),
    open = '{}', resending = '{}', account = coalesce(CAST(:account AS text), account)
WHERE id = :range
""")

_KEYS = f"""
SELECT r.run, r.id AS range, s.p AS pos, g.keys[s.p % {PAGE_SIZE} + 1] AS key,
    coalesce(g.attempts[s.p % {PAGE_SIZE} + 1], 0) + 1 AS attempt
FROM range r
CROSS JOIN LATERAL (SELECT generate_series(lower(x), upper(x) - 1) AS p
                    FROM unnest(CAST(:positions AS int4multirange)) x) s
JOIN page g ON g.run = r.run AND g.plan = r.plan AND g.wave = r.page_wave
    AND g.number = r.first_page + s.p / {PAGE_SIZE}
WHERE r.id = :range
"""

# One re-send a key and run: what was in doubt before, in whichever range, is not sent a third time.
_DOUBTED_BEFORE = text(f"""
SELECT k.pos FROM ({_KEYS}) k
WHERE EXISTS (SELECT 1 FROM delivery d WHERE d.run = k.run AND d.key = k.key AND d.outcome = 'uncertain')
""")

_WRITE_UNCERTAIN = text(f"""
INSERT INTO delivery (run, range, pos, key, attempt, outcome, code)
SELECT k.run, k.range, k.pos, k.key, k.attempt, 'uncertain', '{SENDER_LOST}' FROM ({_KEYS}) k ORDER BY k.pos
""")

_WRITE_DOUBT = text(f"INSERT INTO doubt (range, pos, key) SELECT k.range, k.pos, k.key FROM ({_KEYS}) k")

# Only under the range's lock and with resending empty. What is no longer in doubt is dropped: it was
# recorded after all, or re-sent meanwhile, or a retry has taken its place in the sum.
_ABSORB = text("""
WITH late AS (DELETE FROM late_outcome WHERE range = :range RETURNING *),
     cleared AS (DELETE FROM doubt d USING late WHERE d.range = late.range AND d.pos = late.pos
                 AND NOT d.retried RETURNING d.pos),
     hit AS (INSERT INTO delivery (run, range, pos, key, attempt, outcome, code, enhanced, reply, relay_queue_id,
                                   address_hash)
             SELECT r.run, r.id, l.pos, l.key, l.attempt, l.outcome, l.code, l.enhanced, l.reply, l.relay_queue_id,
                    l.address_hash
             FROM late l JOIN range r ON r.id = l.range
             WHERE r.resend @> l.pos OR l.pos IN (SELECT pos FROM cleared)
             RETURNING pos, outcome),
     n AS (SELECT count(*) FILTER (WHERE outcome = 'sent')::int AS sent,
                  count(*) FILTER (WHERE outcome = 'failed')::int AS failed,
                  coalesce(range_agg(int4range(pos, pos + 1)), '{}') AS positions
           FROM hit)
UPDATE range r SET resend = r.resend - n.positions, uncertain = r.uncertain - n.sent - n.failed,
    sent = r.sent + n.sent, failed = r.failed + n.failed
FROM n WHERE r.id = :range AND n.sent + n.failed > 0
RETURNING r.run, r.state, n.sent, n.failed
""")

_ABSORB_RUN = text("""
UPDATE run SET uncertain = uncertain - :sent - :failed, sent = sent + :sent, failed = failed + :failed WHERE id = :run
""")

_FINISH = text("""
UPDATE range SET state = 'Finished', owner = NULL, lease_until = NULL
WHERE id = :range AND state = 'Open' AND pos = planned AND open + returned + resend + resending = '{}'
""")


def _fold(counter: str) -> str:
    moved = f" - CASE r.from_verdict WHEN '{counter}' THEN r.planned ELSE 0 END"
    return f"{counter} = u.{counter} + r.{counter}" + (moved if counter in {"deferred", "failed", "uncertain"} else "")


_FOLD = text(f"UPDATE run u SET {', '.join(map(_fold, COUNTERS))} FROM range r WHERE r.id = :range AND u.id = r.run")

_CLOSE = text("""
UPDATE range SET state = 'Closed', cancelled = cancelled + planned - pos + width(returned), resend = '{}'
WHERE id = :range
""")


@dataclass(frozen=True, slots=True)
class RangeState:
    """What an owner must know of its range's row.

    Attributes:
        place: of the row's newest version in the table (ctid).
        position, open, returned, resend, resending: its columns.
    """

    place: str
    position: int
    open: Positions
    returned: Positions
    resend: Positions
    resending: Positions

    @classmethod
    def read(cls, row: Sequence[Any]) -> RangeState:
        """From the columns of `STATE`, in their order, the last of the row."""
        place, position, opened, returned, resend, resending = row[-6:]
        parse = Positions.parse
        return cls(place, position, parse(opened), parse(returned), parse(resend), parse(resending))

    def owes_nothing(self, planned: int) -> bool:
        """Whether FINISH would hit."""
        return self.position == planned and not (self.open or self.returned or self.resend or self.resending)


def take(
    connection: Connection,
    range_id: int,
    owner: UUID | None,
    timing: Timing,
    *,
    account: str | None = None,
    fence: bool = False,
) -> bool:
    """ACQUIRE (owner) or SETTLE (None): raise the epoch, then, in statements of their own, account for what is open.

    What is open may have been handed over: it is usage of the last owner's account. From here on it is `account`.

    Args:
        fence: do not wait for a lease that holds; its owner finds itself fenced, and what it was sending is uncertain
            until its late outcomes come.

    Returns:
        False, and nothing changed: the range has ended, or somebody's lease holds.
    """
    who = str(owner) if owner else None
    horizon = timing.lease_seconds + timing.clock_slack_seconds
    values = {"range": range_id, "owner": who, "horizon": horizon, "fence": fence}
    row = connection.execute(_LOCK_TO_TAKE, values).one_or_none()
    if row is None:
        return False
    left, resending = Positions.parse(row.open), Positions.parse(row.resending)
    again = EMPTY
    if left and row.on_uncertain == OnUncertain.RESEND:
        again = left - doubted_before(connection, range_id, left)
    add_usage(connection, row.account, range_id, len(left) + len(resending))
    connection.execute(
        _TAKE,
        {
            "range": range_id,
            "owner": who,
            "lease": timing.lease_seconds,
            "again": str(again),
            "account": account,
        },
    )
    if left:
        connection.execute(_WRITE_UNCERTAIN, {"range": range_id, "positions": str(left)})
    write_doubt(connection, range_id, (left - again) | resending)
    absorb(connection, range_id)
    finish(connection, range_id)
    return True


def doubted_before(connection: Connection, range_id: int, positions: Positions) -> Positions:
    """Those of `positions` whose key was uncertain before in this run: they are not sent once more."""
    found = connection.scalars(_DOUBTED_BEFORE, {"range": range_id, "positions": str(positions)})
    return Positions.of(found)


def write_doubt(connection: Connection, range_id: int, positions: Positions) -> None:
    """Name positions as uncertain for good."""
    if positions:
        connection.execute(_WRITE_DOUBT, {"range": range_id, "positions": str(positions)})


def absorb(connection: Connection, range_id: int) -> int:
    """Turn what is uncertain into what a fenced sender left as late outcomes; the range's row is locked.

    Returns:
        how many positions were turned.
    """
    row = connection.execute(_ABSORB, {"range": range_id}).one_or_none()
    if row is None:
        return 0
    if row.state != "Open":
        connection.execute(_ABSORB_RUN, {"run": row.run, "sent": row.sent, "failed": row.failed})
    return int(row.sent) + int(row.failed)


def finish(connection: Connection, range_id: int) -> bool:
    """End a range that owes nothing, and fold its counters into the run's.

    Returns:
        whether it ended now.
    """
    if connection.execute(_FINISH, {"range": range_id}).rowcount == 0:
        return False
    connection.execute(_FOLD, {"range": range_id})
    return True


def close(connection: Connection, range_id: int, timing: Timing, *, fence: bool = False) -> bool:
    """CLOSE: settle a range that nobody owns (with `fence`: any), then count what was never claimed as cancelled.

    Returns:
        False, and nothing changed: it has ended, or its lease must be waited out.
    """
    if not take(connection, range_id, None, timing, fence=fence):
        return False
    row = connection.execute(
        text("SELECT resend::text FROM range WHERE id = :range AND state = 'Open'"), {"range": range_id}
    ).one_or_none()
    if row is not None:
        write_doubt(connection, range_id, Positions.parse(row.resend))
        connection.execute(_CLOSE, {"range": range_id})
        connection.execute(_FOLD, {"range": range_id})
    return True
