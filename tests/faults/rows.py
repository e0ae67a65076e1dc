"""The matrix: one row a fault."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from . import blows, plans, snapshot
from .blows import cut_commit, misbehave, stop_inside
from .scene import SENDERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .scene import Scene


@dataclass(frozen=True)
class Row:
    """One fault.

    Attributes:
        name: how it is asked for and printed.
        says: what is done, for people.
        blow: does it, to a run in full flight.
        bound: what it may leave in doubt, for people; the number is worked out for each run.
        runs: of the whole matrix.
        proxied: senders reach ledger and Redis by way of the proxies.
        stopped: it ends with senders that refuse to go on.
        defaults: one run more with the sender's default settings.
        in_time: the time to recover is judged.
        opening: does the plan and the start itself, and is then the whole fault.
        environ: further settings of the senders.
        match: the audience's filter.
        senders: how many at once; a single one reads later ranges later.
        skips: somebody must have been skipped in the end, else the fault came to nothing.
        default_blow, default_opening: in the run with default settings, if others.
    """

    name: str
    says: str
    blow: Callable[[Scene], None] = blows.nothing
    bound: str = "0"
    runs: int = 5
    proxied: bool = False
    stopped: bool = False
    defaults: bool = False
    in_time: bool = False
    opening: Callable[[Scene], None] | None = None
    environ: dict[str, str] = field(default_factory=dict)
    match: tuple[dict[str, object], ...] = ()
    senders: int = SENDERS
    skips: bool = False
    default_blow: Callable[[Scene], None] | None = None
    default_opening: Callable[[Scene], None] | None = None


A_SECOND = "a second of each struck sender"
IN_FLIGHT = "one mail a connection of each sender"
APPLIED = "one for each time the rule was applied"

SENDER = (
    Row("kill", "kill -9 of one sender", blows.kill, A_SECOND, 10, defaults=True, in_time=True),
    Row("kill-all", "kill -9 of all senders", blows.kill_all, A_SECOND, 8, defaults=True, in_time=True),
    Row("thaw", "SIGSTOP past the lease, a successor, thaw", blows.freeze_and_thaw, A_SECOND, 8, defaults=True,
        in_time=True),
    Row("kill-in-claim", "kill -9 while a claim's COMMIT is under way; it never arrives", blows.kill_inside_claim,
        A_SECOND, 6, proxied=True, defaults=True, in_time=True),
    Row("stop-claim", "SIGSTOP between UPDATE and COMMIT of a claim, a successor, thaw", stop_inside("claim"),
        A_SECOND, 6, proxied=True, defaults=True, in_time=True),
    Row("stop-record", "SIGSTOP between UPDATE and COMMIT of a record, a successor, thaw", stop_inside("record"),
        A_SECOND, 6, proxied=True, defaults=True, in_time=True),
    Row("term", "SIGTERM with time to drain", blows.terminate, "0", 8, defaults=True, in_time=True),
    Row("term-hurry", "SIGTERM without time to drain, a slow relay", blows.terminate_in_a_hurry, IN_FLIGHT, 6,
        environ={"MAILFLEET_GRACE_SECONDS": "5"}, defaults=True, in_time=True),
    Row("memory", "out of memory: a cgroup's OOM kill (RLIMIT_AS where there is none)", blows.starve, A_SECOND, 6,
        defaults=True, in_time=True),
    Row("twins", "two processes for each range", blows.twins, "0", 6, defaults=True),
)  # fmt: skip

POSTGRES = (
    Row("postgres-restart", "fast shutdown and start", blows.restart_postgres, IN_FLIGHT, 6, defaults=True,
        in_time=True),
    Row("postgres-kill", "kill -9 of the server", blows.kill_postgres, IN_FLIGHT, 8, defaults=True, in_time=True),
    Row("postgres-away", "no server for 1 to 6 s (defaults: 60 s)", blows.away(1, 6), IN_FLIGHT, 5, defaults=True,
        in_time=True, default_blow=blows.away(60, 60)),
    Row("postgres-frozen", "the server stands still for 1 to 3.5 s", blows.freeze_postgres, IN_FLIGHT, 5,
        defaults=True, in_time=True),
    Row("postgres-read-only", "every transaction is read-only for a while", blows.read_only, IN_FLIGHT, 5,
        defaults=True, in_time=True),
    Row("postgres-slow", "each message 20 to 150 ms late", blows.slow_postgres, IN_FLIGHT, 5, proxied=True,
        defaults=True, in_time=True),
    Row("postgres-cut", "every connection lost, up to four times", blows.cut_connections, IN_FLIGHT, 6, proxied=True,
        defaults=True, in_time=True),
    Row("rewound", "an older state is restored", blows.rewind, IN_FLIGHT, 4, stopped=True, defaults=True),
    Row("cancel", "cancelled in full flight, one sender killed", blows.cancel, A_SECOND, 5, defaults=True),
    *(
        Row(f"commit-{step}-{how}", f"COMMIT of a {step} cut: {what}", cut_commit(step, how), bound, 3, proxied=True,
            defaults=True, in_time=step != "close")
        for step, bound in (("claim", IN_FLIGHT), ("record", IN_FLIGHT), ("takeover", A_SECOND), ("drain", IN_FLIGHT),
                            ("close", A_SECOND))
        for how, what in (("before", "never arrived"), ("after", "its answer lost"), ("hold", "it arrives late"))
    ),
)  # fmt: skip

REDIS = (
    Row("redis-kill", "kill -9, away for up to 2.5 s, empty afterwards", blows.kill_redis, runs=6),
    Row("redis-flush", "FLUSHALL, up to three times", blows.flush_redis, runs=5),
    Row("redis-slow", "each message 10 to 600 ms late", blows.slow_redis, runs=5, proxied=True),
    Row("redis-clock-ahead", "its clock an hour ahead, and back", blows.step_clock(3_600), runs=5),
    Row("redis-clock-behind", "its clock an hour behind, and back", blows.step_clock(-3_600), runs=5),
)

GARBAGE = "\x00\xff250 nonsense\x07"
SMTP = (
    Row("smtp-refuse", "the relay dies and nobody listens for up to 2 s", blows.refuse, IN_FLIGHT, 6),
    Row("smtp-disconnect", "all connections reset, up to three times", blows.disconnect,
        "one mail a connection of each sender, each time", 6),
    *(
        Row(f"smtp-hang-{phase}", f"no answer at {phase}, up to four times",
            misbehave(doubt=phase == "dot", phase=phase, then="stall"), APPLIED if phase == "dot" else "0", 4)
        for phase in ("connect", "ehlo", "mail", "rcpt", "data", "dot")
    ),
    Row("smtp-reset-before-dot", "reset in the middle of the message",
        misbehave(doubt=True, phase="body", then="reset"), APPLIED, 5),
    Row("smtp-reset-after-dot", "taken, then reset without an answer",
        misbehave(doubt=True, phase="dot", then="reset", accept=True), APPLIED, 6),
    Row("smtp-lost-after-dot", "not taken, and reset without an answer",
        misbehave(doubt=True, phase="dot", then="reset", accept=False), APPLIED, 5),
    Row("smtp-garbage", "garbage instead of an answer",
        misbehave(doubt=True, phase=["mail", "rcpt", "dot"], reply=GARBAGE, then="close"), APPLIED, 5),
    Row("smtp-421", "421 in mid-session", misbehave(phase=["mail", "rcpt"], reply="421 4.3.2 going down", then="close"),
        runs=5),
    Row("smtp-drip", "each answer to a dot 300 ms late, for a while", misbehave(phase="dot", delay=0.3), runs=4),
    Row("smtp-451", "451 to 5 %, once each",
        misbehave(phase="rcpt", share=0.05, once_per_recipient=True, reply="451 4.2.1 mailbox busy"), runs=5),
    Row("smtp-down-at-start", "nobody listens when sending starts", opening=plans.relay_down_at_start, runs=4),
)  # fmt: skip

PLAN = (
    Row("plan-killed", "the planner killed half-way, then planned again", opening=plans.killed, runs=5, proxied=True),
    Row("plan-twice", "two planners at once", opening=plans.twice, runs=5),
    Row("plan-older", "a plan of an older definition that finishes after an edit", opening=plans.older, runs=4,
        proxied=True),
)  # fmt: skip

PEOPLE = (
    Row("rows-inserted", "rows inserted while sending: not in the run",
        blows.change_rows("INSERT INTO subscribers SELECT g, 'late' || g || '@example.net', 'Late' FROM"
                          " (SELECT coalesce(max(id), 0) + 1 + %s AS g FROM subscribers) t"), runs=4),
    Row("rows-deleted", "rows deleted while sending", blows.change_rows("DELETE FROM subscribers WHERE id %% 10 = %s"),
        runs=4, senders=1, skips=True),
    Row("rows-re-keyed", "keys changed while sending",
        blows.change_rows("UPDATE subscribers SET id = id + 1000000 WHERE id %% 10 = %s AND id < 1000000"), runs=4,
        senders=1, skips=True),
    Row("rows-unsubscribed", "unsubscribed while sending: the campaign's match no longer holds",
        blows.change_rows("UPDATE subscribers SET first_name = 'Gone' WHERE id %% 10 = %s"), runs=4,
        senders=1, skips=True, match=({"column": "first_name", "operator": "NotEquals", "values": ["Gone"]},)),
    Row("snapshot", "a snapshot held open from full flight to the end", blows.hold_snapshot, runs=3),
    Row("snapshot-updates", "a range's 2,000 claims and records under a held snapshot (defaults: 12,000, ten minutes"
        " of a sender): less than twice as slow", opening=snapshot.held(snapshot.PAIRS), runs=2, defaults=True,
        default_opening=snapshot.held(snapshot.PAIRS_OF_TEN_MINUTES)),
)  # fmt: skip

AT_ONCE = {
    "kill": (blows.kill, A_SECOND),
    "kill-all": (blows.kill_all, A_SECOND),
    "thaw": (blows.freeze_and_thaw, A_SECOND),
    "term": (blows.terminate, "0"),
    "postgres-restart": (blows.restart_postgres, IN_FLIGHT),
    "postgres-kill": (blows.kill_postgres, IN_FLIGHT),
    "postgres-cut": (blows.cut_connections, IN_FLIGHT),
    "commit-record-after": (cut_commit("record", "after"), IN_FLIGHT),
    "commit-claim-hold": (cut_commit("claim", "hold"), IN_FLIGHT),
    "redis-kill": (blows.kill_redis, "0"),
    "redis-flush": (blows.flush_redis, "0"),
    "smtp-refuse": (blows.refuse, IN_FLIGHT),
    "smtp-disconnect": (blows.disconnect, IN_FLIGHT),
    "rows-deleted": (blows.change_rows("DELETE FROM subscribers WHERE id %% 10 = %s"), "0"),
}
"""Blows that may meet: each leaves what it struck as it was."""
SERVER = {"postgres-restart", "postgres-kill"}
"""One server cannot be ended and started by two hands at once."""
PAIRS = 24


def pairs(number: int = PAIRS, draw: int = 20261124) -> tuple[Row, ...]:
    """Two faults at once, chosen by Hypothesis; the same for the same `draw`."""
    chosen: dict[tuple[str, str], None] = {}

    @seed(draw)
    @settings(max_examples=number * 4, database=None, deadline=None, phases=(Phase.generate,),
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.lists(st.sampled_from(sorted(AT_ONCE)), min_size=2, max_size=2, unique=True))
    def choose(names: list[str]) -> None:
        one, other = sorted(names)
        if not {one, other} <= SERVER:
            chosen.setdefault((one, other))

    choose()
    return tuple(
        Row(f"{one}+{other}", f"{one} and {other} at once", blows.both(AT_ONCE[one][0], AT_ONCE[other][0]),
            f"{AT_ONCE[one][1]} + {AT_ONCE[other][1]}", 1, proxied=True)
        for one, other in list(chosen)[:number]
    )  # fmt: skip


FAMILIES = {"sender": SENDER, "postgres": POSTGRES, "redis": REDIS, "smtp": SMTP, "plan": PLAN, "people": PEOPLE}


def all_rows() -> dict[str, Row]:
    """Every row by name, in order."""
    return {row.name: row for rows in (*FAMILIES.values(), pairs()) for row in rows}
