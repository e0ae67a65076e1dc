"""A ledger that knows less than was reported has lost commits: nothing is sent, since it might be sent twice.

`sent` never falls, and a run's row is never deleted. A status that speaks of more than the ledger knows says so
(a ledger restored from an old backup, or an empty one); so does a sender that saw its own commit vanish.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailfleet_operator.actions import SuspendJob, TellLimiter
from mailfleet_operator.conditions import Type, false, true
from mailfleet_sender.contract.accounts import ReportReason

from .step import Step

if TYPE_CHECKING:
    from mailfleet_operator.observation import Observation


def policy(o: Observation) -> Step | None:
    """Suspend what is at work and stop."""
    if not (evidence := _evidence(o)):
        return None
    message = (
        f"the ledger lost commits: {evidence}. Nothing is sent, for it could be sent twice. Restore the ledger;"
        " or, to send to all again, delete the campaign and apply it anew"
    )
    jobs = tuple(SuspendJob(j.name, j.uid, suspend=True) for j in o.own_jobs if not j.over and not j.suspended)
    spec, relay = o.campaign.spec, o.relay
    paused = (TellLimiter(relay.relay.account, spec.weight, paused=True),) if relay and relay.relay and spec else ()
    return Step(
        (*jobs, *paused),
        (true(Type.STALLED, "LedgerRewound", message), false(Type.SENDING, "LedgerRewound", "see Stalled")),
        last=True,
    )


def _evidence(o: Observation) -> str | None:
    ledger, status, spec = o.ledger, o.campaign.status, o.campaign.spec
    if ledger is None or spec is None:
        return None
    if any(r.reason is ReportReason.LEDGER_REWOUND for r in ledger.reports):
        return "a sender read less than it had written"
    if status.run_id != spec.run_id:
        return None
    if status.sent > ledger.totals.sent:
        return f"{status.sent} were reported as sent, it knows {ledger.totals.sent}"
    if status.start_time and ledger.run is None:
        return "sending had begun, it knows no such run"
    return None
