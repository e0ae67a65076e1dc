"""Whether campaigns can send through the relay, as far as anybody knows before they do. It holds up no campaign."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import hindered
from .conditions import RelayType, Said, no, unknown, yes

if TYPE_CHECKING:
    from .observation import RelayObservation

NO_LEDGER, FAILED, TRYING = "LedgerUnavailable", "PreflightFailed", "Preflighting"


def policy(o: RelayObservation) -> Said:
    """The first that is in the way, else what the newest preflight found."""
    if o.relay.invalid:
        return no("SpecInvalid", o.relay.invalid)
    if o.ledger_trouble:
        return no(NO_LEDGER, f"the ledger does not answer: {o.ledger_trouble}")
    if o.limiter_trouble:
        return no("LimiterUnavailable", f"without the limiter nothing is sent: {o.limiter_trouble}")
    hindrance = hindered.policy(o)
    if hindrance and hindrance.holds is False:
        return hindrance
    return _without_report(o) or _found(o) or hindrance or _so_far(o)


def _found(o: RelayObservation) -> Said | None:
    if o.verdict is None:
        return None
    if o.verdict.fault:
        return no(str(o.verdict.fault), o.verdict.message)
    return yes("Ready", f"{o.verdict.message}{_account(o)}")


def _account(o: RelayObservation) -> str:
    """With whom the limits are shared, and which of its own do not hold."""
    relay = o.relay
    if not relay.sharing or not relay.relay:
        return ""
    others = ", ".join(relay.sharing[:2]) + (f" and {len(relay.sharing) - 2} more" if len(relay.sharing) > 2 else "")
    lowest = f"; the lowest limits hold: {relay.lowered}" if relay.lowered else ""
    return f"; account {relay.relay.account} is shared with {others}{lowest}"


def _without_report(o: RelayObservation) -> Said | None:
    """A preflight that could not tell the ledger what it found: its last words."""
    job = o.last
    if o.at_work or job is None or job.complete or (o.verdict and job.is_of(o.verdict.reporter)):
        return None
    for pod in o.pods_of(job):
        if pod.exit_code is not None and pod.last_words:
            return no(NO_LEDGER, f"the preflight reports: {pod.last_words}")
    return None


def _so_far(o: RelayObservation) -> Said:
    """Nothing is known of the relay as it is now. While it is tried again the reason before stays: no flickering."""
    before = Said.before(o.relay.status, RelayType.READY)
    if o.at_work and o.at_work.attempt > 1 and before and before.reason in {NO_LEDGER, FAILED}:
        return before
    if o.last and not o.at_work and not o.last.complete:
        how = next((f"{p.exit_reason or 'exit'} {p.exit_code}" for p in o.pods_of(o.last) if p.exit_code), "")
        detail = how or o.last.failed_message or o.last.failed_reason
        return unknown(FAILED, f"the preflight's Job {o.last.name} failed ({detail}): look at the log of its pod")
    return unknown(TRYING, "a preflight connects to the relay")
