"""A campaign's life when something is killed under it: nobody is lost, nobody gets two."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from e2e.house import kill_container

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from e2e.house import House
    from e2e.stage import Stage

RATE = 200
LOST = "e2e-lost"
PLACE = "mailfleet.dev/e2e-place"


@pytest.fixture
def lost_node(mailfleet: House) -> Iterator[str]:
    """A node that takes pods and whose kubelet never says anything; afterwards there is the real one alone."""
    room = {"cpu": "4", "memory": "4Gi", "pods": "10"}
    metadata = {"name": LOST, "labels": {PLACE: "here"}}
    status = {"allocatable": room, "capacity": room}
    taints = [{"key": PLACE, "effect": "NoSchedule"}]  # for senders alone, who tolerate it
    node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": taints}, "status": status}
    mailfleet.kubectl("delete", "node", LOST, "--ignore-not-found")
    mailfleet.kubectl("create", "-f", "-", stdin=json.dumps(node))
    yield LOST
    mailfleet.kubectl("delete", "node", LOST)
    mailfleet.kubectl("label", "nodes", "--all", f"{PLACE}-")


def test_a_sender_killed_with_9_leaves_at_most_a_second_in_doubt(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("sender-killed", rate=f"{RATE}/s", spec={"senders": {"maxReplicas": 1}})
    stage.fill(3_000)
    stage.apply_relay()
    stage.apply()
    stage.until_accepted(500)
    (pod,) = stage.pods()
    assert kill_container(pod) > 0
    stage.until(
        "the pod is replaced",
        lambda: [p for p in stage.pods() if p["metadata"]["uid"] != pod["metadata"]["uid"]],
        seconds=60,
    )
    stage.until_complete(seconds=150)
    stage.balance(uncertain=RATE)
    print(f"uncertain after kill -9: {stage.count('uncertain')} of {RATE}/s")


def test_an_operator_killed_with_9_does_not_stop_the_sending(
    make_stage: Callable[..., Stage], mailfleet: House
) -> None:
    stage = make_stage("operator-killed", rate=f"{RATE}/s")
    stage.fill(3_000)
    stage.apply_relay()
    stage.apply()
    stage.until_accepted(300)
    pod = mailfleet.operator_pod()
    assert kill_container(pod) > 0
    at_kill = len(stage.accepted())
    stage.until_accepted(at_kill + RATE, seconds=20)
    mailfleet.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force", "--wait=false")
    stage.until_complete(seconds=120)
    stage.balance()
    assert stage.count("uncertain") == 0
    assert mailfleet.operator_pod()["metadata"]["uid"] != pod["metadata"]["uid"]


def test_a_sender_on_a_lost_node_is_replaced_on_another(make_stage: Callable[..., Stage], lost_node: str) -> None:
    senders = {"maxReplicas": 1, "nodeSelector": {PLACE: "here"}, "tolerations": [{"operator": "Exists"}]}
    stage = make_stage("node-lost", spec={"senders": senders})
    stage.fill(500)
    stage.apply_relay()
    stage.apply()
    stage.until("a sender is given to the node", lambda: [p for p in stage.pods() if node(p) == lost_node], seconds=60)
    (pod,) = stage.pods()
    stage.kubectl("label", "nodes", "--all", "--overwrite", f"{PLACE}=here")
    stage.kubectl("label", "node", lost_node, "--overwrite", f"{PLACE}=lost")
    # As node lifecycle does after minutes: nobody is there to end the pod, and nobody but the operator says it is over.
    stage.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=1", "--wait=false")
    stage.until_complete(seconds=150)
    stage.balance()


def node(pod: dict[str, Any]) -> str | None:
    found: str | None = pod["spec"].get("nodeName")
    return found


def test_a_namespace_deleted_while_sending_goes_and_the_campaign_can_come_back(
    make_stage: Callable[..., Stage],
) -> None:
    stage = make_stage("namespace-gone", rate=f"{RATE}/s")
    stage.fill(3_000)
    stage.apply_relay()
    stage.apply()
    stage.until_accepted(300)
    stage.kubectl("delete", "namespace", stage.namespace, "--timeout=360s", seconds=370)
    stopped = len(stage.accepted())
    assert stopped < 2_900, "it was deleted half-way"
    stage.prepare()
    stage.apply_relay()
    stage.apply()
    stage.until_complete(seconds=120)
    stage.balance(uncertain=RATE)
