"""What the operator tells Prometheus of a campaign's life, on a real API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import custom_resources
from prometheus import Scrape
from services import wait_for

if TYPE_CHECKING:
    from operator_hand import Hand, OperatorProcess

C = "mailfleet_emailcampaign_"


def test_a_campaigns_series_from_its_plan_to_its_deletion(hand: Hand, operator: OperatorProcess) -> None:
    hand.people(1_000)
    whose = {"namespace": hand.namespace, "emailcampaign": "autumn"}
    hand.apply(custom_resources.relay("ses"), custom_resources.campaign("autumn"))
    assert hand.plan() == 0
    wait_for("a send Job", lambda: hand.jobs("sender"), interval=0.2)
    hand.send_all("autumn")
    hand.wait_for_reason("autumn", "Complete", "Complete")

    holds = {**whose, "condition": "Complete", "status": "true"}

    def complete() -> Scrape | None:
        scrape = Scrape.of(operator.metrics_port)
        return scrape if scrape.values(f"{C}status_condition", **holds) == [1] else None

    scrape = wait_for("Complete is told", complete)
    scrape.check()
    assert 0 < len(scrape.about(**whose)) <= 60
    assert scrape.values(f"{C}planned_recipients", **whose) == [1_000]
    assert scrape.values(f"{C}recipients", **whose, outcome="sent") == [1_000]
    assert scrape.values(f"{C}recipients", **whose, outcome="remaining") == [0]
    assert scrape.values(f"{C}info", **whose, relay="ses") == [1]
    assert scrape.values(f"{C}completion_timestamp_seconds", **whose)
    assert not scrape.values(f"{C}estimated_completion_timestamp_seconds", **whose)
    assert scrape.values("mailfleet_emailrelay_limit_messages_per_second", namespace=hand.namespace, relay="ses")
    assert scrape.values("mailfleet_ledger_up") == [1]
    assert scrape.values("mailfleet_limiter_up") == [1]
    assert scrape.values("mailfleet_operator_reconcile_duration_seconds_count", kind="campaign")[0] > 0
    assert scrape.values("mailfleet_operator_queue_depth")
    assert "@" not in scrape.text
    hand.kubectl("delete", "emailcampaign", "autumn")
    wait_for("its series are gone", lambda: not Scrape.of(operator.metrics_port).about(**whose))
