"""Relays that share an account share its limits, and the lowest of each holds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from mailfleet_operator import accounts, manifests
from mailfleet_sender.contract.rate import Rate
from mailfleet_sender.limiter import AccountLimits
from observations import campaign, relay

if TYPE_CHECKING:
    from mailfleet_operator.observation import RelayView
    from mailfleet_sender.contract.relay import Relay

NOBODY: frozenset[str] = frozenset()


def view(name: str = "ses", namespace: str = "marketing", *, account: str | None = "eu", **spec: Any) -> RelayView:
    """A relay with an account, by its manifest."""
    limits = {"rate": spec.pop("rate", "14/s"), **spec.pop("limits", {}), **({"account": account} if account else {})}
    found = relay(limits=limits, **spec)
    assert found.relay
    named = found.relay.model_copy(update={"namespace": namespace, "name": name})
    return replace(found, name=name, namespace=namespace, relay=named)


def holding(one: RelayView, *others: RelayView, shared: frozenset[str] = NOBODY) -> Relay:
    """The relay with the limits that hold for it."""
    found = accounts.settled(one, (one, *others), shared).relay
    assert found
    return found


def test_without_an_account_it_is_the_relays_own_name() -> None:
    assert accounts.key_of(view(account=None), NOBODY) == "marketing/ses"
    assert holding(view(account=None)).account == "marketing/ses"


def test_an_account_belongs_to_its_namespace() -> None:
    assert accounts.key_of(view(), NOBODY) == "marketing/eu"
    assert accounts.key_of(view(namespace="sales"), NOBODY) == "sales/eu"


def test_an_account_that_the_installation_lists_is_one_in_all_namespaces() -> None:
    shared = frozenset({"eu"})
    assert {accounts.key_of(view(namespace=n), shared) for n in ("sales", "marketing")} == {"eu"}
    assert accounts.key_of(view("eu", account=None), shared) == "marketing/eu"  # a name is no account


def test_an_account_named_as_another_relay_is_that_relays() -> None:
    assert accounts.key_of(view("b", account="ses"), NOBODY) == accounts.key_of(view(account=None), NOBODY)


def test_the_lowest_rate_holds_for_both() -> None:
    fast, slow = view(rate="14/s"), view("other", rate="10/s")
    assert holding(fast, slow).limits.rate == holding(slow, fast).limits.rate == "10/s"


def test_a_rate_is_compared_by_what_it_gives() -> None:
    assert holding(view(rate="500/m"), view("other", rate="10/s")).limits.rate == "500/m"
    assert holding(view(rate="10/s,max_burst=20"), view("other", rate="10/s")).limits.rate == "10/s"


def test_a_limit_that_only_one_has_holds_for_both() -> None:
    quota = {"quota": {"messages": 1_000}, "domains": [{"name": "gmail.com", "rate": "5/s"}]}
    one, other = view(limits=quota, connections={"max": 50}), view("other", connections={"max": 20})
    held = holding(other, one)
    assert held.limits.quota
    assert held.limits.quota.messages == 1_000
    assert [d.rate for d in held.limits.domains] == ["5/s"]
    assert held.connections.max == 20


def test_the_words_say_with_whom_and_what_of_its_own_does_not_hold() -> None:
    limits = {"quota": {"messages": 1_000}, "domains": [{"name": "gmail.com", "rate": "5/s"}]}
    found = accounts.settled(view(), (view("other", rate="10/s", limits=limits),), NOBODY)
    assert found.sharing == ("marketing/other",)
    assert found.lowered == "rate 10/s (here 14/s), quota 1000 in Rolling24h (here none), gmail.com 5/s (here none)"
    stricter = accounts.settled(view("other", rate="10/s", limits=limits), (view(),), NOBODY)
    assert (stricter.sharing, stricter.lowered) == (("marketing/ses",), "")


def test_a_relay_that_cannot_be_read_lowers_nothing() -> None:
    broken = replace(view("broken", rate="1/s"), relay=None, invalid="spec.host: missing")
    assert holding(view(), broken).limits.rate == "14/s"
    assert accounts.settled(broken, (view(),), NOBODY) is broken


def test_a_relay_alone_is_left_as_it_is() -> None:
    alone = view(account=None)
    assert accounts.settled(alone, (alone,), NOBODY) is alone


def test_another_account_replaces_the_senders() -> None:
    def made_for(relay: RelayView) -> str:
        return manifests.made_for_send(campaign(), accounts.settled(relay, (relay,), NOBODY), "mailfleet")

    assert made_for(view()) != made_for(view(account="us")) != made_for(view(account=None))
    assert made_for(view(account="ses")) == made_for(view(account=None))
    assert made_for(view(rate="1/s")) == made_for(view(rate="2/s"))


RATES = st.builds("{}/{}".format, st.integers(1, 5_000), st.sampled_from("smhd"))
LIMITS = st.fixed_dictionaries(
    {"rate": RATES},
    optional={
        "quota": st.fixed_dictionaries({"messages": st.integers(1, 10_000)}),
        "domains": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(["gmail.com", "GMX.de", "web.de"]), "rate": RATES}),
            max_size=3,
            unique_by=lambda d: d["name"],
        ),
    },
)


@given(st.lists(LIMITS, min_size=1, max_size=4), st.randoms())
def test_all_who_share_have_the_same_limits_and_none_is_above_anybodys_own(
    specs: list[dict[str, Any]], random: Any
) -> None:
    ours = [view(f"relay-{n}", limits=limits) for n, limits in enumerate(specs)]
    shuffled = random.sample(ours, len(ours))
    held = [AccountLimits.of(holding(one, *shuffled)) for one in ours]
    assert all(limits == held[0] for limits in held)
    for one in ours:
        assert one.relay
        own = AccountLimits.of(one.relay)
        assert held[0].rate.per_second <= own.rate.per_second
        assert own.quota is None or (held[0].quota and held[0].quota.messages <= own.quota.messages)
        assert all(held[0].domains[name].per_second <= rate.per_second for name, rate in own.domains.items())
    assert held[0].rate in [Rate.parse(limits["rate"]) for limits in specs]
