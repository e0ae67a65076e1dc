"""Every series that there is: a campaign, a relay and a sender of which all is known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from mailfleet_operator import plan, status
from mailfleet_operator.metrics import OperatorMetrics, Shown
from mailfleet_operator.pace import Pace, Sample
from mailfleet_sender.delivery.pool import Pool
from mailfleet_sender.delivery.tally import Tally
from mailfleet_sender.delivery.trouble import Trouble
from mailfleet_sender.limiter.account import AccountState, QuotaUse
from mailfleet_sender.metrics import SenderMetrics
from observations import NOW, ago, campaign, ledger, observation, relay, run, started

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mailfleet_operator.observation import Observation
    from mailfleet_sender.smtp import Connection

MOVING = Pace((Sample(ago(10), 0), Sample(NOW, 5_000)), 0, 0, NOW)


def shown(o: Observation | None = None) -> Shown:
    """What a look at this has found."""
    o = o or observation(pace=MOVING)
    return Shown.of(o, status.of_campaign(o, plan.plan(o)))


def fullest() -> Shown:
    """A campaign with every figure: one that has an end and is being sent, and has a completion time all the same."""
    view = campaign(started(sent=1), schedule={"endTime": "2026-12-01T10:00:00Z"})
    return shown(observation(campaign=view, pace=MOVING, ledger=ledger(run=replace(run(), ended_at=NOW))))


MOST: Mapping[tuple[str, str], Shown] = {("marketing", "autumn"): fullest()}


def operator_registry(campaigns: Mapping[tuple[str, str], Shown]) -> CollectorRegistry:
    """The operator's, with these campaigns, a relay in use, and a look that failed."""
    registry = CollectorRegistry()
    metrics = OperatorMetrics(registry)
    metrics.campaigns = lambda: campaigns
    view = replace(relay(), status={"conditions": [{"type": "Ready", "status": "True", "reason": "Ready"}]})
    assert view.relay
    metrics.relays = {("marketing", "ses"): view}
    state = AccountState(
        1, 10, 1, paused=False, booked_seconds=0, campaigns={}, effective_per_second=7, quota=QuotaUse(9, 8)
    )
    metrics.accounts = {view.relay.account: state}
    return registry


async def _no_connection() -> Connection:
    raise AssertionError("nobody connects here")


def sender_registry(tally: Tally | None = None) -> CollectorRegistry:
    """A sender's."""
    trouble = Trouble(None, None, run=1, reporter="test")  # type: ignore[arg-type] - tells nobody here
    whose = {"namespace": "marketing", "emailcampaign": "autumn", "relay": "ses"}
    registry = CollectorRegistry()
    registry.register(SenderMetrics(whose, tally or Tally(), Pool(_no_connection, 1, trouble)))
    return registry
