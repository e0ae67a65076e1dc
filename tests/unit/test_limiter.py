"""Permits, refusals and the appetite: arithmetic without Redis."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.errors import SettingsError
from mailfleet_sender.limiter import Appetite, Permits, Refusal, Report, Why, open_limiter, open_limiter_admin
from mailfleet_sender.limiter.account import CampaignUse, read_account
from mailfleet_sender.limiter.connect import Address
from mailfleet_sender.limiter.keys import Keys
from mailfleet_sender.limiter.limits import BUCKET_SECONDS, days_around
from mailfleet_sender.limiter.permits import answered

MICROSECONDS = st.integers(0, 1_000_000)
ROUND_TRIPS = st.floats(0, 1)


@given(MICROSECONDS, MICROSECONDS, MICROSECONDS, ROUND_TRIPS, st.floats(0, 1), st.integers(0, 499))
def test_a_permit_is_never_usable_before_or_after_its_slot_wherever_the_script_ran_within_the_round_trip(
    first: int, spacing: int, grace: int, round_trip: float, when: float, k: int
) -> None:
    permits = answered([b"ok", 500, first, spacing, grace, 0, 0], called_at=50.0, received_at=50 + round_trip, draw=0)
    assert isinstance(permits, Permits)
    start, end = permits.slot(k)
    ran_at = 50 + when * round_trip
    slot = ran_at + (first + k * spacing) / 1e6
    assert start >= slot - 1e-9
    assert end <= slot + grace / 1e6 + 1e-9


def test_slots_lie_spacing_apart_and_stay_usable_for_the_grace() -> None:
    permits = answered([b"ok", 3, 20_000, 10_000, 100_000, 0, 0], called_at=7.0, received_at=7.25, draw=0.5)
    assert isinstance(permits, Permits)
    assert [permits.slot(k) for k in range(3)] == [
        (pytest.approx(7.27 + 0.01 * k), pytest.approx(7.12 + 0.01 * k)) for k in range(3)
    ], "a round trip longer than the grace leaves no time to use them"


@given(MICROSECONDS, st.integers(0, 800_000), st.floats(0, 1))
def test_a_refusal_waits_its_time_and_the_drawn_part_of_the_spread(after: int, spread: int, draw: float) -> None:
    refusal = answered([b"turn", 0, 0, 0, 0, after, spread], called_at=1, received_at=2, draw=draw)
    assert isinstance(refusal, Refusal)
    assert refusal.why is Why.TURN
    assert refusal.after_seconds >= 0.001
    assert after / 1e6 - 1e-9 <= max(refusal.after_seconds, after / 1e6) <= max(0.001, (after + spread) / 1e6) + 1e-9


def test_without_limits_there_is_no_answer() -> None:
    assert answered([b"seed", 0, 0, 0, 0, 0, 0], called_at=1, received_at=2, draw=0) is None


def test_an_answer_of_a_newer_script_is_refused() -> None:
    with pytest.raises(ValueError, match="later"):
        answered([b"later", 0, 0, 0, 0, 0, 0], called_at=1, received_at=2, draw=0)


def test_a_new_pod_says_five_hundred() -> None:
    assert Appetite().want == 500


def test_permits_that_found_no_connection_shrink_the_appetite_to_what_the_batch_used() -> None:
    appetite = Appetite()
    appetite.granted(100)
    for _ in range(70):
        appetite.starved()
    assert appetite.want == 500, "the batch is judged when the next one begins"
    appetite.granted(30)
    assert appetite.want == 30


def test_a_batch_that_used_nothing_still_asks_for_one() -> None:
    appetite = Appetite()
    appetite.granted(5)
    for _ in range(5):
        appetite.starved()
    appetite.granted(1)
    assert appetite.want == 1


def test_the_appetite_grows_by_a_twentieth_and_from_the_eighth_clean_batch_on_by_half() -> None:
    appetite = Appetite()
    appetite.granted(200)
    for _ in range(100):
        appetite.starved()
    wants = []
    for _ in range(11):
        appetite.granted(appetite.want)
        wants.append(appetite.want)
    assert wants == [100, 105, 110, 115, 121, 127, 134, 140, 211, 316, 474]
    appetite.granted(appetite.want)
    assert appetite.want == 500


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 500))))
def test_the_appetite_stays_between_one_and_its_most(batches: list[tuple[int, int]]) -> None:
    appetite = Appetite()
    for granted, starved in batches:
        appetite.granted(granted)
        for _ in range(min(granted, starved)):
            appetite.starved()
        assert 1 <= appetite.want <= 500


def test_all_keys_of_an_account_share_one_hash_tag() -> None:
    keys = Keys("team/relay").all
    assert len(set(keys)) == 7
    assert {key.partition("{")[2].partition("}")[0] for key in keys} == {"team/relay"}


@pytest.mark.parametrize(("minutes", "rate"), [(0, 70.0), (2, 80.0), (6, 100.0), (600, 100.0)])
def test_of_an_account_at_rest_the_rate_comes_back_as_well(minutes: int, rate: float) -> None:
    now = 1_800_000_000_000_000
    state = {"slow": "0.700000000", "slow-at": str(now - minutes * 60_000_000)}
    found = read_account({"version": "1", "rate": "100"}, state, {}, now)
    assert found.effective_per_second == pytest.approx(rate)
    assert found.slowed == (rate < 100)


def test_the_state_counts_only_pods_that_asked_lately() -> None:
    now = 1_790_000_000_000_000
    state = read_account(
        {
            "version": "3", "rate": "14", "burst": "1.4", "weight:n/a": "300", "paused:n/a": "1",
            "until:n/a": f"{now} {now + 1_000_000} {now + 2_000_000}",
        },
        {"tat": str(now + 250_000)},
        {"n/a|p0": f"{now - 1} 1 n/a", "n/b|p1": f"{now - 1} 0 n/b", "n/b|p2": f"{now - 1_600_000} 1 n/b"},
        now,
    )  # fmt: skip

    def at(seconds: int) -> datetime:
        return datetime.fromtimestamp(now / 1e6 + seconds, UTC)

    assert (state.version, state.permits_per_second, state.burst, state.paused) == (3, 14.0, 1.4, False)
    assert state.booked_seconds == 0.25
    assert dict(state.campaigns) == {
        "n/a": CampaignUse(300, True, at(0), pods=1, hungry_pods=1, reopens=((at(1), at(2)),)),
        "n/b": CampaignUse(100, False, None, pods=1, hungry_pods=0),
    }


def test_the_state_tells_until_when_the_relay_is_left_alone() -> None:
    now = 1_790_000_000_000_000

    def until(moment: str) -> datetime | None:
        return read_account({"version": "1"}, {"shut-until": moment}, {}, now).exhausted_until

    assert until("") is None
    assert until(str(now)) is None
    assert until(str(now + 600_000_000)) == datetime.fromtimestamp(now / 1e6 + 600, UTC)


@pytest.mark.parametrize("open_client", [open_limiter, open_limiter_admin])
def test_a_url_of_something_else_is_refused_without_repeating_it(open_client: object) -> None:
    assert callable(open_client)
    with pytest.raises(SettingsError, match="rediss://") as caught:
        open_client("https://user:secret@redis.example:6379")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kind", "hosts", "service"),
    [
        ("redis+sentinel://a:1,b/main", "sentinel", (("a", 1), ("b", 26379)), "main"),
        ("rediss+sentinel://u:p@a:1,[::1]:2/main/3", "sentinel", (("a", 1), ("::1", 2)), "main"),
        ("redis+cluster://a,b:7", "cluster", (("a", 6379), ("b", 7)), ""),
    ],
)
def test_sentinels_and_clusters_are_named_by_a_url(
    url: str, kind: str, hosts: tuple[tuple[str, int], ...], service: str
) -> None:
    address = Address.parse(url)
    assert (address.kind, address.hosts, address.service) == (kind, hosts, service)


def test_login_database_and_tls_of_a_url_reach_the_client_and_the_sentinels_have_their_own_login() -> None:
    address = Address.parse("rediss+sentinel://shop:se%2Fcret@a:1/main/3?ssl_ca_certs=/ca.pem&sentinel_password=other")
    assert address.options == {
        "username": "shop", "password": "se/cret", "db": 3, "ssl": True, "ssl_ca_certs": "/ca.pem",
    }  # fmt: skip
    assert address.sentinel_options == {"password": "other", "ssl": True, "ssl_ca_certs": "/ca.pem"}


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://u:secret@a:1", "redis+sentinel://u:secret@a:1/main/x", "redis+cluster://u:secret@a:1/4",
        "redis+cluster://u:secret@", "redis+magic://u:secret@a:1", "redis+cluster://u:secret@a:x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("open_client", [open_limiter, open_limiter_admin])
def test_a_url_that_is_none_is_refused_with_the_forms_and_without_repeating_it(url: str, open_client: Any) -> None:
    with pytest.raises(SettingsError, match=r"redis\+sentinel://host:port,host:port/service/0") as caught:
        open_client(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Asia/Beirut"])
@pytest.mark.parametrize("day", range(0, 366, 13))
def test_days_follow_each_other_without_gap_and_begin_where_the_date_changes(zone: str, day: int) -> None:
    now = datetime(2026, 1, 1, 15, 30, tzinfo=UTC) + timedelta(days=day)
    days = days_around(now, zone)
    assert days[0] <= now - timedelta(hours=1) <= days[3]
    for midnight in days:
        before, after = (moment.astimezone(ZoneInfo(zone)) for moment in (midnight - timedelta(seconds=1), midnight))
        assert after.date() == before.date() + timedelta(days=1)
        assert midnight.timestamp() % BUCKET_SECONDS == 0, "buckets of five minutes fit into days"
    assert {b - a for a, b in itertools.pairwise(days)} <= {timedelta(hours=h) for h in (23, 24, 25)}


def test_outcomes_and_returned_permits_are_told_in_the_order_that_the_script_reads() -> None:
    report = Report()
    report.count(OutcomeKind.SENT, policy=False, throttled=False, exhausted=False)
    report.count(OutcomeKind.FAILED, policy=False, throttled=False, exhausted=False)
    report.count(OutcomeKind.FAILED, policy=True, throttled=False, exhausted=False)
    report.count(None, policy=False, throttled=True, exhausted=True)
    report.count(OutcomeKind.DEFERRED, policy=False, throttled=False, exhausted=False)
    report.give_back("12@34", 2)
    report.give_back("")
    assert report.arguments() == [1, 1, 1, 1, 1, "12@34=2"]
