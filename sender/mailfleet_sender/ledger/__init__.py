"""The ledger: who was planned, claimed, sent and in doubt, in Postgres (DESIGN section 5, LEDGER).

Three sides use it: an owner of one range (`OwnedRange`), a planner (`Planner`) and the operator (`Runs`).
Works on Postgres 14 or newer, also behind PgBouncer in transaction mode.
"""

from .connection import open_ledger
from .loads import begin_load, drop_load, load_rows
from .migration import load_address_key, migrate, revisions
from .owner import OwnedRange, boottime
from .pages import fate_of, first_keys
from .partitions import make_partitions
from .planner import Planner
from .positions import EMPTY, Positions
from .preflights import preflights, save_preflight
from .records import Snapshot, load_campaign, load_relay, report, save_relay
from .retention import Retained, retain
from .runs import Runs
from .shape import must_migrate
from .suppression import SUPPRESSED_CODE, AddressHasher, suppressed
from .usage import usage_since, usage_totals
from .values import (
    PAGE_SIZE,
    Deferrals,
    Ended,
    KeyArray,
    Leased,
    Outcome,
    PageKey,
    Plan,
    PlannedPage,
    RunRow,
    StepRow,
    Timing,
    WaveRow,
)

__all__ = [
    "EMPTY",
    "PAGE_SIZE",
    "SUPPRESSED_CODE",
    "AddressHasher",
    "Deferrals",
    "Ended",
    "KeyArray",
    "Leased",
    "Outcome",
    "OwnedRange",
    "PageKey",
    "Plan",
    "PlannedPage",
    "Planner",
    "Positions",
    "Retained",
    "RunRow",
    "Runs",
    "Snapshot",
    "StepRow",
    "Timing",
    "WaveRow",
    "begin_load",
    "boottime",
    "drop_load",
    "fate_of",
    "first_keys",
    "load_address_key",
    "load_campaign",
    "load_relay",
    "load_rows",
    "make_partitions",
    "migrate",
    "must_migrate",
    "open_ledger",
    "preflights",
    "report",
    "retain",
    "revisions",
    "save_preflight",
    "save_relay",
    "suppressed",
    "usage_since",
    "usage_totals",
]
