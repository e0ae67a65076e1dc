"""The operator ends at every moment between two of its actions, and 20 times at random: lost 0, duplicates 0.

At boundaries: `mailfleet_operator.boundaries`, each at most once, by a supervisor in the operator's own pod (what
Kubernetes does as well, but later and later each time). The API test walks all of them; here is one campaign with
those that a sending to real pods has.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from e2e.house import holds_for, kill_container
from mailfleet_operator.boundaries import NAMES
from operator_hand import MANY_LIVES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from e2e.house import House
    from e2e.stage import Stage

KILLS = 20
DIED = "/tmp/died"
ACTIONS = """
EnsureRun CreatePlanJob RecordStart StartRun CreateWaveJob TellLimiter RememberScaling WriteStatus SuspendJob
MakeRetryWave CompleteRun ForgetInLimiter
"""
EXPECTED = frozenset(ACTIONS.split())


@pytest.fixture
def dying_operator(mailfleet: House) -> Iterator[None]:
    """The operator's Deployment with a supervisor around it, and all boundaries fatal once; afterwards as before."""
    deployments = mailfleet.kubectl.json("get", "deployments", "--selector", "app.kubernetes.io/component=operator")
    (deployment,) = deployments["items"]
    name, container = deployment["metadata"]["name"], deployment["spec"]["template"]["spec"]["containers"][0]["name"]
    program = f"import os\nos.makedirs({DIED!r}, exist_ok=True)\n{MANY_LIVES}"
    environment = [
        {"name": "MAILFLEET_TEST_DIE_AT", "value": "all"},
        {"name": "MAILFLEET_TEST_DIED", "value": DIED},
    ]
    changed = {"name": container, "command": ["python", "-c", program], "env": environment}
    rollout = ("rollout", "status", f"deployment/{name}", "--timeout=240s")
    patch = {"spec": {"template": {"spec": {"containers": [changed]}}}}
    try:
        mailfleet.kubectl("patch", "deployment", name, "--type=strategic", "-p", json.dumps(patch))
        mailfleet.kubectl(*rollout, seconds=250)
        yield
    finally:
        with contextlib.suppress(Exception):
            mailfleet.kubectl("rollout", "undo", f"deployment/{name}")
        mailfleet.kubectl(*rollout, seconds=250)


def hit(mailfleet: House) -> set[str]:
    """The boundaries at which an operator ended so far."""
    pod = mailfleet.operator_pod()["metadata"]["name"]
    listing = f"import os; print(*os.listdir({DIED!r}))"
    return set(mailfleet.kubectl("exec", pod, "-c", "operator", "--", "python", "-c", listing).split())


def test_an_operator_that_ends_at_each_boundary(
    make_stage: Callable[..., Stage], mailfleet: House, dying_operator: None
) -> None:
    stage = make_stage("operator-boundaries", rate="100/s", spec={"senders": {"maxReplicas": 3}})
    some = f"user2[0-9]*@{stage.domain}$"
    later = {"phase": "rcpt", "reply": "451 4.3.0 later", "once_per_recipient": True, "recipient": some}
    mailfleet.oracle.behave(later)
    stage.fill(3_000)
    stage.apply_relay()
    stage.apply(retry={"initialDelaySeconds": 3})
    stage.until_accepted(200, seconds=240)
    stage.apply(suspend=True)
    stage.until_condition("Suspended", reason="BySpec", seconds=120)
    stage.until("its pods are gone", lambda: not stage.pods(), seconds=120)
    before = len(stage.accepted())
    assert holds_for(3, lambda: len(stage.accepted()) == before)
    stage.apply(suspend=False, senders={"minReplicas": 2, "maxReplicas": 3})
    stage.until_complete(seconds=300)
    stage.until("the limiter forgets it", lambda: "after:ForgetInLimiter" in hit(mailfleet), seconds=60)
    stage.balance()
    assert stage.count("uncertain") == 0
    found = hit(mailfleet)
    print(f"the operator ended at {len(found)} of {len(NAMES)} boundaries: {sorted(found)}")
    assert {name.partition(":")[2] for name in found} >= EXPECTED


def test_an_operator_killed_20_times_at_random(make_stage: Callable[..., Stage], mailfleet: House) -> None:
    stage = make_stage("operator-killed-often", rate="40/s")
    stage.fill(6_000)
    stage.apply_relay()
    draw = random.Random(20)
    stage.apply()

    def at_work() -> dict[str, Any]:
        return mailfleet.operator_pod()

    killed = 0
    while killed < KILLS:
        pod = at_work()
        if pod and kill_container(pod) > 0:
            killed += 1
            # A new pod, not a new container: its back-off would grow to minutes.
            name = pod["metadata"]["name"]
            mailfleet.kubectl("delete", "pod", name, "--grace-period=0", "--force", "--wait=false")
            stage.until(
                "another operator",
                lambda gone=pod: at_work() and at_work()["metadata"]["uid"] != gone["metadata"]["uid"],
                seconds=60,
            )
        time.sleep(draw.uniform(0.2, 6))  # what is tested is where in its life it is killed
    stage.until_complete(seconds=400)
    stage.balance()
    assert stage.count("uncertain") == 0
    print(f"killed {killed} times")
