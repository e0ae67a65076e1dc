"""Which relays share an account, and which limits hold there. Pure (docs/decisions/0077).

A relay's account is `limits.account`, else its own name; it belongs to the namespace, so two namespaces may use one
name without knowing of each other. Only accounts that the installation lists are shared between namespaces.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mailfleet_sender.contract.rate import Rate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mailfleet_sender.contract.relay import DomainLimit, Limits, Relay

    from .observation import RelayView


def key_of(view: RelayView, shared: frozenset[str]) -> str | None:
    """The key of the account's limits; None for a relay that cannot be read.

    Args:
        view: as its manifest says it.
        shared: accounts that hold in all namespaces.
    """
    if view.relay is None:
        return None
    account = view.relay.limits.account
    return account if account and account in shared else f"{view.namespace}/{account or view.name}"


def settled(view: RelayView, others: Iterable[RelayView], shared: frozenset[str]) -> RelayView:
    """The relay with the limits that hold: those of all who share the account, the lowest of each.

    Args:
        view: as its manifest says it.
        others: relays with the same key; `view` itself may be among them.
        shared: accounts that hold in all namespaces.
    """
    relay, key = view.relay, key_of(view, shared)
    if relay is None or key is None:
        return view
    peers = [o for o in others if o.relay and (o.namespace, o.name) != (view.namespace, view.name)]
    if not peers and key == f"{view.namespace}/{view.name}":
        return view if relay.limits.account is None else replace(view, relay=_with(relay, {"account": None}))
    ours = [relay, *(o.relay for o in peers if o.relay)]
    lowest = _with(
        relay,
        {"account": key, **_lowest_limits([r.limits for r in ours])},
        most=min((r.connections.max for r in ours if r.connections.max), default=None),
    )
    names = sorted(f"{o.namespace}/{o.name}" for o in peers)
    return replace(view, relay=lowest, sharing=tuple(names), lowered=_differences(relay, lowest))


def _with(relay: Relay, limits: dict[str, object], *, most: int | None = None) -> Relay:
    """The relay with other limits."""
    changes: dict[str, object] = {"limits": relay.limits.model_copy(update=limits)}
    if most is not None:
        changes["connections"] = relay.connections.model_copy(update={"max": most})
    return relay.model_copy(update=changes)


def _lowest_limits(all_of_them: list[Limits]) -> dict[str, object]:
    quotas = [limits.quota for limits in all_of_them if limits.quota]
    return {
        "rate": min((limits.rate for limits in all_of_them), key=_strictness),
        # Of windows that differ none is the stricter one: the fewest messages decide, whatever their window.
        "quota": min(quotas, key=lambda q: (q.messages, q.window, q.time_zone or ""), default=None),
        "domains": _lowest_domains(domain for limits in all_of_them for domain in limits.domains),
    }


def _strictness(rate: str) -> tuple[float, float]:
    found = Rate.parse(rate)
    return found.per_second, found.burst


def _lowest_domains(domains: Iterable[DomainLimit]) -> tuple[DomainLimit, ...]:
    lowest: dict[str, DomainLimit] = {}
    for domain in domains:
        name = domain.name.lower()
        before = lowest.get(name)
        if before is None or _strictness(domain.rate) < _strictness(before.rate):
            lowest[name] = domain
    return tuple(lowest[name] for name in sorted(lowest))


def _differences(own: Relay, holds: Relay) -> str:
    """What of a relay's own limits does not hold, in words."""
    pairs = (
        ("rate", own.limits.rate, holds.limits.rate),
        ("quota", _messages(own), _messages(holds)),
        ("connections", own.connections.max, holds.connections.max),
    )
    found = [f"{what} {lowest} (here {mine or 'none'})" for what, mine, lowest in pairs if mine != lowest]
    mine, lowest = ({d.name.lower(): d.rate for d in r.limits.domains} for r in (own, holds))
    found += [
        f"{name} {rate} (here {mine.get(name, 'none')})" for name, rate in lowest.items() if mine.get(name) != rate
    ]
    return ", ".join(found)


def _messages(relay: Relay) -> str:
    quota = relay.limits.quota
    return f"{quota.messages} in {quota.window}" if quota else ""
