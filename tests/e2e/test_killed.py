"""A campaign's life when something is killed under it: nobody is lost, nobody gets two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2e.house import kill_container

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.house import House
    from e2e.stage import Stage

RATE = 200


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
