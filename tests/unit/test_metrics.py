"""What Prometheus is told: how many series, with which labels, and when they go away."""

from __future__ import annotations

import re
import urllib.request
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from mailfleet_operator import reconcile
from mailfleet_operator.conditions import Type
from mailfleet_operator.metrics import KINDS, OperatorMetrics
from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.delivery.tally import COMMIT_BOUNDS, MAILED, Durations, Tally
from mailfleet_sender.exposition import serve
from mailfleet_sender.limiter.account import AccountState, QuotaUse
from metrics_scene import MOST, operator_registry, sender_registry, shown
from observations import campaign, observation, relay
from services import free_port

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

SERIES_OF_A_CAMPAIGN = 60
LABELS = {"namespace", "emailcampaign", "relay", "condition", "status", "reason", "outcome", "state", "provider", "le"}


def samples(registry: CollectorRegistry) -> list[Sample]:
    """As a scrape shows them."""
    text = generate_latest(registry).decode()
    return [s for family in text_string_to_metric_families(text) for s in family.samples]


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    """One series; labels that are not given do not matter."""
    found = [s.value for s in samples(registry) if s.name == name and labels.items() <= s.labels.items()]
    return found[0] if found else None


class TestOfCampaigns:
    def test_a_campaign_has_at_most_sixty_series(self) -> None:
        count = Counter(
            s.labels["emailcampaign"] for s in samples(operator_registry(MOST)) if "emailcampaign" in s.labels
        )
        assert count["autumn"] <= SERIES_OF_A_CAMPAIGN
        assert count["autumn"] > 45, "the fullest campaign shows every series there is"

    def test_every_series_says_whose_it_is_and_no_label_is_one_of_many(self) -> None:
        for sample in samples(operator_registry(MOST)):
            if sample.name.startswith("mailfleet_emailcampaign_"):
                assert {"namespace", "emailcampaign"} <= set(sample.labels) <= LABELS
            elif sample.name.startswith("mailfleet_emailrelay_"):
                assert {"namespace", "relay"} <= set(sample.labels) <= LABELS

    def test_the_series_of_a_deleted_campaign_are_gone(self) -> None:
        found = {("marketing", "autumn"): shown(), ("marketing", "winter"): shown()}
        registry = operator_registry(found)
        del found["marketing", "autumn"]
        names = {s.labels.get("emailcampaign") for s in samples(registry)}
        assert names == {None, "winter"}

    def test_outcomes_add_up_to_what_was_planned(self) -> None:
        registry = operator_registry({("marketing", "autumn"): shown()})
        outcomes = [s.value for s in samples(registry) if s.name == "mailfleet_emailcampaign_recipients"]
        assert sum(outcomes) == value(registry, "mailfleet_emailcampaign_planned_recipients") == 20_000

    def test_a_condition_holds_in_one_of_three_series(self) -> None:
        registry = operator_registry({("marketing", "autumn"): shown()})
        found = [s for s in samples(registry) if s.name == "mailfleet_emailcampaign_status_condition"]
        assert len(found) == 3 * len(Type)
        holding = {s.labels["condition"]: s.labels["status"] for s in found if s.value}
        assert holding == {str(t): "true" if t in {Type.PLANNED, Type.SENDING} else "false" for t in Type}
        assert value(
            registry, "mailfleet_emailcampaign_status_condition_reason", condition="Stalled", reason="NotStalled"
        )

    def test_what_is_not_known_has_no_series(self) -> None:
        registry = operator_registry({("marketing", "autumn"): shown(observation(ledger=None, relay=None))})
        for name in ("messages_per_second", "limit_messages_per_second", "estimated_completion_timestamp_seconds"):
            assert value(registry, f"mailfleet_emailcampaign_{name}") is None

    def test_a_campaign_that_cannot_be_read_still_shows_its_conditions(self) -> None:
        unreadable = replace(campaign(), spec=None, definition=None, invalid="no")
        registry = operator_registry({("marketing", "autumn"): shown(observation(campaign=unreadable, ledger=None))})
        assert value(registry, "mailfleet_emailcampaign_info", relay="") == 1
        assert value(registry, "mailfleet_emailcampaign_status_condition", condition="Failed") is not None

    def test_the_end_that_the_schedule_sets_is_told(self) -> None:
        seen = campaign(schedule={"endTime": "2026-12-01T10:00:00Z"})
        registry = operator_registry({("marketing", "autumn"): shown(observation(campaign=seen))})
        end = value(registry, "mailfleet_emailcampaign_end_timestamp_seconds")
        assert end == (observation().now + timedelta(hours=2)).timestamp()


class TestOfRelaysAndTheOperator:
    def metrics(self) -> tuple[OperatorMetrics, CollectorRegistry]:
        registry = CollectorRegistry()
        return OperatorMetrics(registry), registry

    def test_a_relay_in_use_tells_rate_and_quota(self) -> None:
        metrics, registry = self.metrics()
        view = relay("10/s")
        assert view.relay
        metrics.relays = {("marketing", "ses"): view}
        assert value(registry, "mailfleet_emailrelay_limit_messages_per_second", relay="ses") == 10
        assert value(registry, "mailfleet_emailrelay_effective_messages_per_second") is None
        metrics.accounts = {
            view.relay.account: AccountState(
                1, 10, 1, paused=False, booked_seconds=0, campaigns={}, effective_per_second=7, quota=QuotaUse(100, 90)
            )
        }
        assert value(registry, "mailfleet_emailrelay_effective_messages_per_second", relay="ses") == 7
        assert value(registry, "mailfleet_emailrelay_quota_messages", relay="ses") == 100
        assert value(registry, "mailfleet_emailrelay_quota_used_messages", relay="ses") == 90

    async def test_looks_are_timed_and_failures_counted(self) -> None:
        @dataclass(frozen=True)
        class Key:
            kind: str

        metrics, registry = self.metrics()

        async def look(key: Key) -> None:
            if key.kind == "relay":
                raise ValueError(key)

        await metrics.timed(look)(Key("campaign"))
        with pytest.raises(ValueError, match="relay"):
            await metrics.timed(look)(Key("relay"))
        assert value(registry, "mailfleet_operator_reconcile_duration_seconds_count", kind="campaign") == 1
        assert value(registry, "mailfleet_operator_reconcile_duration_seconds_count", kind="relay") == 1
        assert value(registry, "mailfleet_operator_reconcile_errors_total", kind="relay") == 1

    def test_what_never_failed_has_a_count_of_none(self) -> None:
        _, registry = self.metrics()
        assert [value(registry, "mailfleet_operator_reconcile_errors_total", kind=kind) for kind in KINDS] == [0] * 3
        assert set(KINDS) == {reconcile.CAMPAIGN, reconcile.RELAY, reconcile.NAMESPACE}

    def test_ledger_and_limiter_are_up_or_not(self) -> None:
        metrics, registry = self.metrics()
        metrics.ledger_answers(up=True)
        metrics.limiter_answers(up=False)
        assert (value(registry, "mailfleet_ledger_up"), value(registry, "mailfleet_limiter_up")) == (1, 0)


class TestOfSenders:
    def test_a_sender_has_at_most_sixty_series(self) -> None:
        found = samples(sender_registry())
        assert len(found) <= SERIES_OF_A_CAMPAIGN
        assert all({"namespace", "emailcampaign", "relay"} <= set(s.labels) <= LABELS for s in found)

    def test_what_happens_makes_no_further_series(self) -> None:
        tally = Tally()
        before = {(s.name, *s.labels.items()) for s in samples(sender_registry(tally))}
        for kind in MAILED:
            tally.judged("example.org", kind)
        tally.decided([OutcomeKind.SKIPPED, OutcomeKind.DEFERRED])
        tally.commits.took(99)
        assert {(s.name, *s.labels.items()) for s in samples(sender_registry(tally))} == before

    @given(st.text())
    def test_a_domain_is_folded_to_a_provider(self, domain: str) -> None:
        tally = Tally()
        tally.judged(domain, OutcomeKind.SENT)
        assert tally.messages["other"]["sent"] == 1

    def test_providers_are_known_by_their_domains(self) -> None:
        tally = Tally()
        for domain in ("gmail.com", "hotmail.fr", "me.com", "mail.gmail.com"):
            tally.judged(domain, OutcomeKind.FAILED)
        counts = {p: kinds["failed"] for p, kinds in tally.messages.items() if kinds["failed"]}
        assert counts == {"google": 1, "microsoft": 1, "apple": 1, "other": 1}

    @given(st.lists(st.floats(0, 20)))
    def test_a_histogram_holds_each_duration_once(self, durations: list[float]) -> None:
        seen = Durations(COMMIT_BOUNDS)
        for seconds in durations:
            seen.took(seconds)
        tally = Tally()
        tally.commits = seen
        name = "mailfleet_sender_ledger_commit_duration_seconds"
        for bound in COMMIT_BOUNDS:
            expected = sum(1 for d in durations if d <= bound)
            assert value(sender_registry(tally), f"{name}_bucket", le=str(bound)) == expected
        assert value(sender_registry(tally), f"{name}_count") == len(durations)


class TestServing:
    def test_a_process_serves_its_registry(self) -> None:
        port, registry = free_port(), sender_registry()
        assert serve(registry, port)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        assert "mailfleet_sender_connections{" in text
        assert "process_resident_memory_bytes" in text
        assert not re.search(r"_created\b", text)
        assert not serve(CollectorRegistry(), port), "a port that is taken keeps nobody from working"

    def test_without_a_port_nothing_is_served(self) -> None:
        assert not serve(CollectorRegistry(), None)
