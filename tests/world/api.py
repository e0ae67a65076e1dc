"""The API server: objects of one namespace, a history that watches read, and the requests that the operator makes."""

from __future__ import annotations

import itertools
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from mailfleet_operator import views
from mailfleet_operator.cluster import JSON, Cluster
from mailfleet_operator.conditions import time_text
from mailfleet_operator.errors import ClusterError, ObjectConflictError, ObjectGoneError
from mailfleet_operator.observe import Watched

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .clock import Clock, Wire

Body = dict[str, Any]
NAMESPACE = "marketing"
KINDS = ("emailcampaigns", "emailrelays", "jobs", "pods", "nodes", "namespaces", "events")
VIEWS: dict[str, Callable[[Body], Any]] = {
    "emailcampaigns": views.campaign,
    "emailrelays": views.relay,
    "jobs": views.job,
    "pods": views.pod,
    "nodes": views.node_ready,
    "namespaces": lambda body: "deletionTimestamp" in body["metadata"],
}


def merged(old: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    new = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = merged(new.get(key), value)
    return new


class ApiServer:
    """Bodies are never changed in place: a write puts a new one.

    Attributes:
        history: of each kind, what watches are told: name and body (None: deleted).
        changes: writes of the operator that changed something.
        told: those of them that are statuses of campaigns.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._numbers = itertools.count(1)
        self.objects: dict[str, dict[str, Body]] = {kind: {} for kind in KINDS}
        self.history: dict[str, list[tuple[str, Body | None]]] = {kind: [] for kind in KINDS}
        self.changes = self.told = 0

    def get(self, kind: str, name: str) -> Body | None:
        return self.objects[kind].get(name)

    def put(self, kind: str, body: Body) -> Body:
        """Store a body under a new resourceVersion."""
        number = str(next(self._numbers))
        meta = {"uid": f"uid-{number}", "generation": 1, **body["metadata"], "resourceVersion": number}
        body = {**body, "metadata": meta}
        self.objects[kind][meta["name"]] = body
        self.history[kind].append((meta["name"], body))
        return body

    def remove(self, kind: str, name: str) -> None:
        if self.objects[kind].pop(name, None):
            self.history[kind].append((name, None))

    def mark_deleted(self, kind: str, name: str, grace_seconds: float = 0) -> None:
        """Give it a deletionTimestamp."""
        body = self.objects[kind][name]
        if "deletionTimestamp" not in body["metadata"]:
            at = time_text(type(self._clock)(self._clock.seconds + grace_seconds).now)
            self.put(kind, {**body, "metadata": {**body["metadata"], "deletionTimestamp": at}})

    def request(self, method: str, path: str, body: Mapping[str, Any]) -> Body:
        """What the operator asks."""
        kind, *rest = path.partition(f"/namespaces/{NAMESPACE}/")[2].split("/")
        if kind not in KINDS:
            raise AssertionError(f"the model knows no {method} {path}")
        if method == "POST" and not rest:
            return self._create(kind, body)
        name = rest[0]
        if (old := self.objects[kind].get(name)) is None:
            raise ObjectGoneError(404, f"{kind} {name} not found")
        if method == "DELETE" and len(rest) == 1:
            return self._delete(kind, name, old, body)
        if method == "PATCH":
            return self._patch(kind, old, body, "status" if rest[1:] == ["status"] else "spec")
        raise AssertionError(f"the model knows no {method} {path}")

    def _create(self, kind: str, body: Mapping[str, Any]) -> Body:
        if kind == "events":
            return dict(body)
        meta = body["metadata"]
        if meta["name"] in self.objects[kind]:
            raise ObjectConflictError(409, f"{kind} {meta['name']} already exists")
        self.changes += 1
        return self.put(kind, dict(body))

    def _delete(self, kind: str, name: str, old: Body, options: Mapping[str, Any]) -> Body:
        wanted = (options.get("preconditions") or {}).get("uid", old["metadata"]["uid"])
        if wanted != old["metadata"]["uid"]:
            raise ObjectConflictError(409, f"{kind} {name} is another one")
        self.changes += 1
        self.remove(kind, name)
        return old

    def _patch(self, kind: str, old: Body, patch: Mapping[str, Any], part: str) -> Body:
        for field, value in patch.get("metadata", {}).items():
            if old["metadata"].get(field) != value:
                raise ObjectConflictError(409, f"{kind} {old['metadata']['name']} was changed: {field}")
        new = merged(old.get(part) or {}, patch.get(part) or {})
        if new == (old.get(part) or {}):
            return old
        self.changes += 1
        self.told += kind == "emailcampaigns"
        return self.put(kind, {**old, part: new})


class ModelCluster(Cluster):
    """The operator's hand on Kubernetes with this API server behind its requests.

    Attributes:
        trouble: status that the next requests get, if any.
    """

    def __init__(self, api: ApiServer, wire: Wire, refusals: list[int]) -> None:
        self._api, self._wire, self._refusals = api, wire, refusals

    def _request(self, method: str, path: str, body: Mapping[str, Any], *, content_type: str = JSON) -> Body:
        if self._refusals:
            status = self._refusals.pop()
            kind = ObjectConflictError if status == 409 else ClusterError
            raise kind(status, f"the model answers {status}")
        return self._wire.call(f"{method} {path}", lambda: self._api.request(method, path, body))


def _named(body: Body) -> Any:
    return NAMESPACE, body["metadata"]["name"]


def _plain(body: Body) -> Any:
    return body["metadata"]["name"]


INDEXES: dict[str, tuple[str, Callable[[Body], Any]]] = {
    "campaigns": ("emailcampaigns", _named),
    "relays": ("emailrelays", _named),
    "jobs": ("jobs", views.owner_campaign),
    "pods": ("pods", views.owner_campaign),
    "nodes": ("nodes", _plain),
    "terminating": ("namespaces", _plain),
}
"""Which indexes of `Watched` are filled, from what, by which key; others, such as those of relays, stay empty."""


class Watches:
    """One operator's indexes: what its watches have brought so far, kind by kind."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._known = {kind: dict(api.objects[kind]) for kind in VIEWS}
        self._seen = {kind: len(api.history[kind]) for kind in VIEWS}
        self._views: dict[tuple[str, str], tuple[str, Any]] = {}
        self.held: set[str] = set()
        """Kinds whose watch brings nothing at present."""
        self.watched = Watched(**{f.name: {} for f in fields(Watched) if f.default is MISSING})
        self._index(set(VIEWS))

    def bring(self) -> None:
        """All that happened, but for watches that are held."""
        changed = set()
        for kind, known in self._known.items():
            history = self._api.history[kind]
            if kind in self.held or self._seen[kind] == len(history):
                continue
            for name, body in history[self._seen[kind] :]:
                if body is None:
                    known.pop(name, None)
                else:
                    known[name] = body
            self._seen[kind] = len(history)
            changed.add(kind)
        self._index(changed)

    def _index(self, changed: set[str]) -> None:
        for field, (kind, key_of) in INDEXES.items():
            if kind not in changed:
                continue
            index: Any = getattr(self.watched, field)
            index.clear()
            for name, body in self._known[kind].items():
                if (key := key_of(body)) is not None:
                    index.setdefault(key, []).append(self._view(kind, name, body))

    def _view(self, kind: str, name: str, body: Body) -> Any:
        version = body["metadata"]["resourceVersion"]
        kept = self._views.get((kind, name))
        if kept and kept[0] == version:
            return kept[1]
        view = VIEWS[kind](body)
        self._views[kind, name] = version, view
        return view
