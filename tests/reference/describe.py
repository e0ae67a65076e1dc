"""docs/reference/describe.md: what `kubectl describe` shows of a campaign in each state, by the operator's own code.

python -m reference.describe
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mailfleet_operator import events, plan, status
from mailfleet_operator.observation import LedgerView, Refusal, Skipped, Status
from mailfleet_operator.pace import Pace, Sample
from mailfleet_sender.contract.accounts import EndReason, Failure, ReportReason, RunState, Totals
from observations import (
    NOW,
    ago,
    campaign,
    failed,
    ledger,
    main_wave,
    observation,
    plan_job,
    planned,
    planning,
    pod,
    relay,
    report,
    run,
    send_job,
    started,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailfleet_operator.observation import Observation

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "describe.md"
MOVING = Pace((Sample(ago(20), 0), Sample(NOW, 10_000)), 0, 0, NOW)
SLOW = Pace((Sample(ago(20), 0), Sample(NOW, 400)), 0, 0, NOW)
STILL = Pace((Sample(ago(400), 0), Sample(ago(390), 0)), 0, 0, ago(400))
NIGHT = {"windows": [{"days": ["Tue"], "from": "09:00", "to": "18:00"}], "timeZone": "Europe/London"}
WHY = (
    Failure("5.1.1", 130, "550 5.1.1 <recipient>: Recipient address rejected: User unknown"),
    Failure("5.2.2", 12, "mailbox full"),
)
WHOLE = ("Sending", "Complete")
SHORT = ("conditions", "phase", "progress", "estimatedCompletionTime", "completionTime")
"""What is shown of the other states: the figures are like those of the two."""
HEAD = """\
# What `kubectl describe emailcampaign` says
<!-- Made by `make reference` from the code that writes the status; a test compares it. -->
Of each state: the part `Status` of `kubectl describe emailcampaign NAME` and the Events that come with it. Conditions
that do not hold and say only that are left out here, and so are the figures, but for two states; all seven conditions
are there from the first visit on, each with the generation of the spec that it speaks of. A condition's reason is for
programs and alerts, its message for people: it names the cause and the remedy.
"""


def with_failures(**changes: Any) -> LedgerView:
    """A run under way, some of whose recipients failed."""
    totals = Totals(planned=20_000, sent=8_858, failed=142, skipped=1_000, remaining=10_000)
    return ledger(**{"totals": totals, "failures": WHY, **changes})


def states() -> dict[str, Observation]:
    """Each state by what a person would call it."""
    over = main_wave(open=0, finished=4, active=0)
    dead = tuple(
        pod(send_job(), n, phase="Failed", exit_code=137, exit_reason="OOMKilled", finished_at=ago(30 + n))
        for n in (0, 1)
    )
    ended = Totals(planned=20_000, sent=18_858, failed=142, skipped=1_000)
    cut = Totals(planned=20_000, sent=8_858, failed=142, skipped=1_000, cancelled=10_000)
    fresh: dict[str, Any] = {"jobs": (), "pods": ()}
    sending = observation(ledger=with_failures(), pace=MOVING, account_rate=500.0)
    job = failed(plan_job(), 30)
    missing = report(ReportReason.TABLE_NOT_FOUND, f"{job.name}-abcde", "there is no table public.peple: mend the name")
    refusal = Refusal("marketing", send_job().name, 'pods "autumn-0" is forbidden: exceeded quota: small', ago(20))
    bad_login = report(ReportReason.SENDER_FAULT, pod(send_job(), 0).name, "535 5.7.8 Authentication failed")
    away = report(ReportReason.RELAY_UNAVAILABLE, pod(send_job(), 0).name, "smtp.example.com:25 refuses the connection")
    slowed = report(ReportReason.RELAY_THROTTLING, pod(send_job(), 0).name, "454 4.7.0 Maximum sending rate exceeded")

    def end(state: RunState, totals: Totals, reason: str | None = None) -> Observation:
        row = run(state, ended_at=NOW, end_reason=reason)
        return observation(ledger=ledger(run=row, totals=totals, waves=(over,), failures=WHY), **fresh)

    return {
        "Being planned": observation(campaign=campaign(), ledger=planning(), jobs=(plan_job(),), pods=()),
        "It cannot be planned": observation(
            campaign=campaign(), ledger=replace(planning(), reports=(missing,)), jobs=(job,), pods=()
        ),
        "The relay is missing": observation(campaign=campaign(), ledger=planning(), relay=None, **fresh),
        "Planned, and held: suspend is true": observation(
            campaign=campaign(suspend=True),
            ledger=planned(
                skipped=(Skipped("InvalidAddress", 900), Skipped("DuplicateAddress", 100)),
                domains=(("gmail.com", 41), ("web.de", 12)),
            ),
            **fresh,
        ),
        "Waiting for its start": observation(
            campaign=campaign(schedule={"startTime": "2026-12-01T09:00:00Z"}), ledger=planned(), **fresh
        ),
        "Sending": sending,
        "Sending at the relay's limit": observation(
            ledger=with_failures(), relay=relay("20/s"), pace=SLOW, account_rate=20.0
        ),
        "Slowed down by the relay": observation(ledger=with_failures(reports=(slowed,)), pace=SLOW),
        "Outside its windows": observation(
            campaign=campaign(started(sent=1), schedule=NIGHT), ledger=with_failures(), jobs=(send_job(suspended=True),)
        ),
        "Its relay's quota is used up": observation(
            ledger=with_failures(),
            quota_room_at=NOW + timedelta(hours=3),
            relay=relay(limits={"rate": "1000/s", "quota": {"messages": 50_000, "window": "Rolling24h"}}),
        ),
        "Paused by a person": observation(
            campaign=campaign(started(sent=1), suspend=True),
            ledger=with_failures(),
            jobs=(send_job(suspended=True),),
            pods=(),
        ),
        "The relay refuses the sender": observation(ledger=with_failures(reports=(bad_login,)), pace=STILL),
        "The relay is away": observation(ledger=with_failures(reports=(away,)), pace=STILL),
        "Pods are refused": observation(pods=(), refusals=(refusal,), ledger=with_failures(), pace=STILL),
        "Senders die": observation(pods=dead, ledger=with_failures(), pace=STILL),
        "The limiter is away": observation(ledger=with_failures(), limiter_trouble="connection refused", pace=STILL),
        "The ledger is away": observation(
            campaign=campaign(status.of_campaign(sending, plan.plan(sending))),
            ledger=None,
            ledger_trouble="connection refused",
        ),
        "Waiting for a retry": observation(
            ledger=ledger(
                totals=Totals(planned=20_000, sent=18_900, skipped=1_000, deferred=100),
                waves=(over,),
                next_due=NOW + timedelta(minutes=10),
            ),
            **fresh,
        ),
        "Complete": end(RunState.COMPLETE, ended),
        "Cancelled": end(RunState.CANCELLED, cut),
        "Its end time came": end(RunState.FAILED, cut, EndReason.END_TIME_REACHED),
    }


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, o in states().items():
        said = status.of_campaign(o, plan.plan(o))
        if title not in WHOLE:
            said = {name: value for name, value in said.items() if name in SHORT}
        told = events.of_change((), Status(said).conditions)
        lines = [*_described(_telling(said), 2), *(["Events:"] if told else [])]
        lines += [f"  {e.kind:<8} {e.reason:<20} {e.message}" for e in told]
        parts.append(f"\n## {title}\n```\nStatus:\n" + "\n".join(lines) + "\n```\n")
    return "".join(parts)


def _telling(said: dict[str, Any]) -> dict[str, Any]:
    """Without conditions that say only that they do not hold, and without what is of no use to a reader here."""
    quiet = {"NotSending", "NotSuspended", "NotThrottled", "NotStalled", "NotComplete", "NotFailed"}
    kept = ("type", "status", "reason", "message")
    conditions = [{k: c[k] for k in kept} for c in said["conditions"] if c["reason"] not in quiet]
    return {**{k: v for k, v in said.items() if k not in {"runId", "observedGeneration"}}, "conditions": conditions}


def _described(node: dict[str, Any], indent: int) -> Iterator[str]:
    """As kubectl describes an object: keys in words, in alphabetical order."""
    for name, value in sorted(node.items()):
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name[0].upper() + name[1:])
        if isinstance(value, dict):
            yield f"{'':{indent}}{words}:"
            yield from _described(value, indent + 2)
        elif isinstance(value, list):
            yield f"{'':{indent}}{words}:"
            for item in value:
                yield from _described(item, indent + 2)
        else:
            yield f"{'':{indent}}{words}: {value}"


if __name__ == "__main__":
    PAGE.write_text(page())
