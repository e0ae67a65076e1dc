"""The sender's configuration at the door."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest

from mailfleet_sender.contract import environment
from mailfleet_sender.errors import SettingsError
from mailfleet_sender.ledger import Timing
from mailfleet_sender.settings import Environment, SendSettings
from mailfleet_sender.smtp import Timeouts

NEEDED = {
    environment.LEDGER_URL: "postgresql://ledger",
    environment.REDIS_URL: "redis://redis",
    environment.DATABASE_URL: "postgresql://shop",
    environment.RUN: "1",
    environment.WAVE: "1",
    environment.INDEX: "0",
    environment.RELAY: "shop/ses",
    environment.POD_NAME: "pod",
}


def read(**more: str) -> SendSettings:
    return SendSettings.read(Environment({**NEEDED, **more}))


def test_without_more_the_ledgers_own_times_hold() -> None:
    usual = asdict(Timing())
    assert read().timing == {name: usual[name] for name in read().timing}
    assert read().smtp.timeout_seconds == math.inf


def test_a_time_is_changed_by_its_variable() -> None:
    assert read(MAILFLEET_LOCK_SECONDS="3").timing["lock_seconds"] == 3


@pytest.mark.parametrize("margin", ["15", "20", "0"])
def test_a_margin_that_leaves_nothing_of_the_lease_is_refused_by_name(margin: str) -> None:
    with pytest.raises(SettingsError, match=r"MAILFLEET_MARGIN_SECONDS .* below MAILFLEET_LEASE_SECONDS \(15\)"):
        read(MAILFLEET_MARGIN_SECONDS=margin)


@pytest.mark.parametrize("name", sorted(NEEDED.keys() - {"MAILFLEET_DATABASE_URL"}))  # a file needs no database
def test_what_is_missing_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        SendSettings.read(Environment({k: v for k, v in NEEDED.items() if k != name}))


def test_a_limit_cuts_only_what_is_longer() -> None:
    cut = Timeouts().at_most(60)
    assert (cut.dial_seconds, cut.dot_seconds, cut.quit_seconds) == (30, 60, 2)
    assert Timeouts().at_most(math.inf) == Timeouts()


def test_metrics_are_served_only_where_a_port_is_named() -> None:
    assert read().metrics_port is None
    assert read(MAILFLEET_METRICS_PORT="9090").metrics_port == 9090
    with pytest.raises(SettingsError, match="MAILFLEET_METRICS_PORT"):
        read(MAILFLEET_METRICS_PORT="metrics")
