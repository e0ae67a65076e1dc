"""kopf's side: what the watches bring goes into indexes, and keys go onto the queue. Nothing is decided here.

No timers, no daemons, no `patch`, no finalizers: deleting a campaign never hangs, operator up or down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import kopf

from . import accounts, names, views
from .observe import Watched
from .reconcile import CAMPAIGN, NAMESPACE, RELAY, Key
from .resources import GROUP, VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .observation import CampaignView, JobView, PodView, Refusal, RelayView

    Add = Callable[[Key], None]
    Body = Mapping[str, Any]

CAMPAIGNS = (GROUP, VERSION, "emailcampaigns")
RELAYS = (GROUP, VERSION, "emailrelays")
JOBS = ("batch", "v1", "jobs")
PODS = ("", "v1", "pods")
NODES = ("", "v1", "nodes")
NAMESPACES = ("", "v1", "namespaces")
EVENTS = ("", "v1", "events")
INDEXES = (
    *("campaigns", "relays", "accounts", "jobs", "pods", "relay_jobs", "relay_pods"),
    *("nodes", "terminating", "refusals"),
)


def configure(settings: kopf.OperatorSettings) -> None:
    """What DESIGN section 2 asks of kopf."""
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.watching.server_timeout = 300
    settings.execution.max_workers = 4
    settings.process.ultimate_exiting_timeout = 20
    ours = f"{names.LABEL_MANAGED_BY}={names.MANAGER}"
    settings.watching.label_selectors[JOBS] = ours
    settings.watching.label_selectors[PODS] = ours
    settings.watching.field_selectors[EVENTS] = "type=Warning"


def index(registry: kopf.OperatorRegistry, shared: frozenset[str]) -> None:
    """The indexes, each a small view of the objects; index functions must be async.

    Args:
        registry: of the operator.
        shared: accounts of relays that hold in all namespaces.
    """
    _index_relays(registry, shared)

    @kopf.index(*CAMPAIGNS, id="campaigns", registry=registry)
    async def campaigns(body: Body, **_: Any) -> dict[tuple[str, str], CampaignView]:
        view = views.campaign(body)
        return {(view.namespace, view.name): view}

    @kopf.index(*JOBS, id="jobs", registry=registry)
    async def jobs(body: Body, **_: Any) -> dict[tuple[str, str], JobView]:
        owner = views.owner_campaign(body)
        return {owner: views.job(body)} if owner else {}

    @kopf.index(*PODS, id="pods", registry=registry)
    async def pods(body: Body, **_: Any) -> dict[tuple[str, str], PodView]:
        owner = views.owner_campaign(body)
        return {owner: views.pod(body)} if owner else {}

    @kopf.index(*NODES, id="nodes", registry=registry)
    async def nodes(body: Body, **_: Any) -> dict[str, bool]:
        return {body["metadata"]["name"]: views.node_ready(body)}

    @kopf.index(*NAMESPACES, id="terminating", registry=registry)
    async def terminating(body: Body, **_: Any) -> dict[str, bool]:
        return {body["metadata"]["name"]: "deletionTimestamp" in body["metadata"]}

    @kopf.index(*EVENTS, id="refusals", registry=registry)
    async def refusals(body: Body, **_: Any) -> dict[tuple[str, str], Refusal]:
        refusal = views.refusal(body)
        return {(refusal.namespace, refusal.job): refusal} if refusal else {}


def _index_relays(registry: kopf.OperatorRegistry, shared: frozenset[str]) -> None:
    @kopf.index(*RELAYS, id="relays", registry=registry)
    async def relays(body: Body, **_: Any) -> dict[tuple[str, str], RelayView]:
        view = views.relay(body)
        return {(view.namespace, view.name): view}

    @kopf.index(*RELAYS, id="accounts", registry=registry)
    async def by_account(body: Body, **_: Any) -> dict[str, RelayView]:
        view = views.relay(body)
        key = accounts.key_of(view, shared)
        return {key: view} if key else {}

    @kopf.index(*JOBS, id="relay_jobs", registry=registry)
    async def relay_jobs(body: Body, **_: Any) -> dict[tuple[str, str], JobView]:
        owner = views.owner_relay(body)
        return {owner: views.job(body)} if owner else {}

    @kopf.index(*PODS, id="relay_pods", registry=registry)
    async def relay_pods(body: Body, **_: Any) -> dict[tuple[str, str], PodView]:
        owner = views.owner_relay(body)
        return {owner: views.pod(body)} if owner else {}


def watched(indices: Mapping[str, Any], shared: frozenset[str]) -> Watched:
    """The indexes as `observe` reads them."""
    return Watched(**{name: indices[name] for name in INDEXES}, shared=shared)


def watch(registry: kopf.OperatorRegistry, add: Add, view: Callable[[], Watched]) -> None:
    """What happens puts keys onto the queue."""

    @kopf.on.event(*CAMPAIGNS, registry=registry)
    async def campaign_event(body: Body, **_: Any) -> None:
        add(Key(CAMPAIGN, body["metadata"]["namespace"], body["metadata"]["name"]))

    @kopf.on.event(*RELAYS, registry=registry)
    async def relay_event(body: Body, **_: Any) -> None:
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        add(Key(RELAY, namespace, name))
        for campaign in view().campaigns_with(namespace, name):
            add(Key(CAMPAIGN, *campaign))

    async def child_event(body: Body, **_: Any) -> None:
        if owner := views.owner_campaign(body):
            add(Key(CAMPAIGN, *owner))
        elif owner := views.owner_relay(body):
            add(Key(RELAY, *owner))

    kopf.on.event(*JOBS, registry=registry, id="job_event")(child_event)
    kopf.on.event(*PODS, registry=registry, id="pod_event")(child_event)

    @kopf.on.event(*NAMESPACES, registry=registry)
    async def namespace_event(body: Body, **_: Any) -> None:
        if "deletionTimestamp" in body["metadata"]:
            add(Key(NAMESPACE, body["metadata"]["name"]))
