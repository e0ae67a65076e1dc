"""What held all the while: rights that are used, and no others; restricted pods; no address and no secret anywhere.

These come last (conftest.py), and judge whatever end-to-end tests ran in this session.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from e2e.evidence import PLACES
from e2e.rights import account_of, granted, is_allowed, is_bound, refused, right_of, role_of, used
from e2e.stage import Stage
from e2e.test_cluster import restricted
from mailfleet_demo.installation import NAMESPACE, OPERATOR
from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.board import Board
    from e2e.evidence import Evidence
    from e2e.house import House
    from e2e.rights import Right
    from kube import Cluster

ACCOUNT = (NAMESPACE, OPERATOR)
NOT_USED: frozenset[Right] = frozenset()
"""Rights that are needed where no end-to-end test comes to, each with its reason. There are none."""
MARGIN_SECONDS = 5
"""From the end of a binding to what a watch sees of it, and from its beginning to what the API server knows."""
PLANTED = "planted"
ADDRESS, SECRET = "user1@planted.example", "planted-battery-staple"


# --- rights ------------------------------------------------------------------------------------------
def rights(house: House, account: tuple[str, str]) -> set[Right]:
    """Every right that a binding gives to this account now."""
    kubectl = house.kubectl
    bindings = kubectl.json("get", "clusterrolebindings,rolebindings", "--all-namespaces")["items"]
    found: set[Right] = set()
    for role in {role_of(binding) for binding in bindings if is_bound(binding, account)}:
        where = ("--namespace", role.namespace) if role.namespace else ()
        found |= granted(kubectl.json("get", role.kind.lower(), role.name, *where)["rules"])
    return found


@dataclass
class Spans:
    """Spans of time, each of something by its name, seen by a watch: a little late."""

    begins: defaultdict[object, list[float]] = field(default_factory=lambda: defaultdict(list))
    ends: defaultdict[object, list[float]] = field(default_factory=lambda: defaultdict(list))

    def hold(self, name: object, moment: float) -> bool:
        """Whether it had begun, and not ended, with a margin on both sides."""
        begun = [at for at in self.begins[name] if at - MARGIN_SECONDS < moment]
        return bool(begun) and not any(begun[-1] < at < moment - MARGIN_SECONDS for at in self.ends[name])


def endings(evidence: Evidence) -> Spans:
    """When namespaces, by name, were being deleted."""
    spans = Spans()
    for version in evidence.versions("namespace"):
        if version.event == "DELETED":
            spans.ends[version.namespace].append(version.at)
        elif "deletionTimestamp" in version.body["metadata"]:
            spans.begins[version.namespace].append(version.at)
    return spans


def removals(evidence: Evidence) -> Spans:
    """When accounts, by namespace and name, had no rights, after an installation was removed."""
    spans = Spans()
    for version in evidence.versions("binding"):
        for subject in version.body.get("subjects") or ():
            if version.event != "MODIFIED":
                which = spans.begins if version.event == "DELETED" else spans.ends
                which[subject.get("namespace"), subject["name"]].append(version.at)
    return spans


def test_every_right_of_the_operator_is_used(mailfleet: House, evidence: Evidence, whole: bool) -> None:
    if not whole:
        pytest.skip("only all end-to-end tests together use every right")
    given = rights(mailfleet, ACCOUNT)
    did = used(e for e in evidence.requests() if account_of(e) == ACCOUNT)
    assert given, "the chart's roles were found"
    assert set(map(str, given - did)) == set(map(str, NOT_USED)), "granted, and used by nobody"


def test_nothing_is_denied_to_the_operator(evidence: Evidence) -> None:
    asked = [e for e in evidence.requests() if account_of(e)[1] == OPERATOR]
    assert len(asked) > 20, "the log holds what it asked for"
    ending, removed, denied = endings(evidence), removals(evidence), []
    for entry in refused(asked):
        at = datetime.fromisoformat(entry["requestReceivedTimestamp"]).timestamp()
        if is_allowed(entry):  # by its role, and too late for the namespace
            excused = ending.hold(entry["objectRef"].get("namespace"), at)
        else:  # Helm takes an installation's rights away before its pod has ended
            excused = removed.hold(account_of(entry), at)
        if not excused:
            denied.append(f"{entry['requestReceivedTimestamp']} {right_of(entry)} {entry['requestURI']}")
    assert denied == []


def test_no_pod_but_the_operator_s_asks_the_api_server_for_anything(mailfleet: House, evidence: Evidence) -> None:
    """Planners, senders, preflights and the chart's test have no rights, and no token to ask with."""
    assert {account_of(e) for e in evidence.requests() if account_of(e)[1] != OPERATOR} == set()
    bindings = mailfleet.kubectl.json("get", "clusterrolebindings,rolebindings", "--all-namespaces")["items"]
    subjects = [s for b in bindings for s in b.get("subjects") or () if s["kind"] == "ServiceAccount"]
    given = {(s.get("namespace"), s["name"]) for s in subjects}
    assert {account for account in given if account[0] != "kube-system"} == {ACCOUNT}
    without = [p for p in evidence.ours().values() if p["metadata"].get("labels", {}).get(COMPONENT) != "operator"]
    assert without
    assert {p["spec"].get("automountServiceAccountToken") for p in without} == {False}


# --- pods --------------------------------------------------------------------------------------------
def test_restricted_pod_security_is_enforced_wherever_pods_ran(evidence: Evidence, cluster: Cluster) -> None:
    levels: defaultdict[tuple[str, str], list[str | None]] = defaultdict(list)
    for version in evidence.versions("namespace"):
        metadata = version.body["metadata"]
        level = metadata.get("labels", {}).get("pod-security.kubernetes.io/enforce")
        of = levels[version.namespace, metadata["uid"]]
        if level or of:  # a person makes a namespace, then labels it
            of.append(level)
    held = {name for (name, _), found in levels.items() if found}
    assert NAMESPACE in held
    assert {pod["metadata"]["namespace"] for pod in evidence.pods.values()} - held == set()
    assert {name: found for (name, _), found in levels.items() if set(found) - {"restricted"}} == {}
    # And it is: this pod asks for nothing, but does not say so.
    spec = restricted(cluster.images["sink"], "pass")
    del spec["securityContext"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "loose"}, "spec": spec}
    create = ("create", "--dry-run=server", "-f", "-", "-n", NAMESPACE)
    assert 'violates PodSecurity "restricted' in cluster.kubectl(*create, stdin=json.dumps(pod), check=False)


# --- what is written -----------------------------------------------------------------------------------
SERVE = """
import http.server, sys, threading
ADDRESS = "{address}"
print("a mail to", ADDRESS, "with", sys.argv[1], flush=True)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'# HELP planted\\nplanted{{to="{address}",by="' + sys.argv[1].encode() + b'"}} 1.0\\n')
    def log_message(self, *_):
        pass
http.server.HTTPServer(("", 9090), Answer).serve_forever()
"""
COMPONENT = "app.kubernetes.io/component"


def plant(stage: Stage, image: str) -> None:
    """An address and a secret in each kind of place: a pod, a Job, an Event, a campaign's status."""
    stage.secret("planted", {"password": SECRET})
    both = f"{ADDRESS} and {SECRET}"
    command = ["python3", "-c", SERVE.format(address=ADDRESS), SECRET]
    ports = [{"name": "metrics", "containerPort": 9090}]
    spec = restricted(image, "", command=command, env=[{"name": "PLANTED", "value": both}], ports=ports)
    spec["automountServiceAccountToken"] = False
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "planted", "labels": {COMPONENT: "test"}}}
    template = {"spec": restricted(image, "pass")}
    metadata = {"name": "planted", "annotations": {"planted": both}}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {"suspend": True, "template": template},
    }
    about = {"apiVersion": "v1", "kind": "Namespace", "namespace": stage.namespace, "name": stage.namespace}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "planted"},
        "involvedObject": about,
        "reason": "Planted",
        "message": both,
    }
    stage.kubectl.apply({**pod, "spec": spec}, {**job, "spec": {"suspend": True, "template": template}}, event)
    stage.apply(suspend=True)
    condition = {"type": "Stalled", "status": "True", "reason": "Planted", "message": both}
    status = {"conditions": [{**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    patch = ("patch", "emailcampaign", stage.campaign, "--subresource=status", "--type=merge")
    stage.kubectl(*patch, "-p", json.dumps({"status": status}))


@pytest.fixture
def planted_stage(mailfleet: House, board: Board) -> Iterator[Stage]:
    """A stage whose campaign goes nowhere: it has no relay."""
    stage = Stage(mailfleet, board, PLANTED)
    stage.prepare()
    yield stage
    stage.kubectl("delete", "namespace", stage.namespace, "--wait=false")


def test_a_planted_address_and_a_planted_secret_are_found_in_every_place(
    planted_stage: Stage, evidence: Evidence, cluster: Cluster
) -> None:
    plant(planted_stage, cluster.images["sender"])

    def missing() -> set[tuple[str, str]]:
        found = {(place, thing) for place, _, thing, _ in evidence.found(planted_stage.namespace)}
        return {(place, thing) for place in PLACES for thing in (ADDRESS, SECRET)} - found

    wait_for("all of it is found", lambda: not missing(), seconds=60, interval=1)


def test_no_address_and_no_secret_is_written_or_shown_anywhere(evidence: Evidence) -> None:
    assert evidence.failure is None
    ours = evidence.ours()
    of = {uid: pod["metadata"].get("labels", {}).get(COMPONENT) for uid, pod in ours.items()}
    ran = {(uid, name) for uid, pod in ours.items() for name in started(pod)}
    kept = {(uid, name) for uid, names in evidence.logs().items() for name in names}
    assert ran - kept == set(), "the log of each container that ran was kept"
    known = {"operator", "planner", "sender", "preflight"} & set(of.values())
    assert "operator" in known
    assert known - {of.get(uid) for uid, _ in evidence.listed} == set(), "processes of each kind of pod were seen"
    assert known & {"operator", "sender"} <= {of.get(uid) for uid in evidence.scraped}, "metrics of each were read"
    assert [found for found in evidence.found() if not is_planted(*found)] == []


def started(pod: dict[str, Any]) -> set[str]:
    """The containers of a pod that have run."""
    status = pod["status"]
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return {c["name"] for c in containers if c["state"].keys() & {"running", "terminated"} and c.get("containerID")}


def is_planted(place: str, of: str, thing: str, what: str) -> bool:
    """Whether it is ours, and where we put it."""
    return f"e2e-{PLANTED}" in of and (thing == ADDRESS or f"e2e-{PLANTED}/{PLANTED}" in what)
