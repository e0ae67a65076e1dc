"""What the whole installation stands on goes away for a while: campaigns say so, and go on by themselves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from e2e.house import holds_for
from mailfleet_demo.installation import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.house import House
    from e2e.stage import Stage

PERMITS_LAST_SECONDS = 1 + 0.1 + 1
"""What was granted may be used: a second ahead at most, and the grace; one more for the machine."""


def test_without_redis_nothing_is_sent_and_with_it_the_campaign_goes_on(
    make_stage: Callable[..., Stage], mailfleet: House
) -> None:
    stage = make_stage("redis-down", rate="200/s")
    stage.fill(3_000)
    stage.apply_relay()
    stage.apply()
    stage.until_accepted(300)
    mailfleet.kubectl("scale", "deployment/redis", "--replicas=0")
    try:
        mailfleet.kubectl("wait", "pod", "--selector=app.kubernetes.io/name=redis", "--for=delete", "--timeout=240s")
        gone = time.time()
        stage.until_condition("Throttled", reason="LimiterUnavailable", seconds=60)
        assert holds_for(6, lambda: stage.accepted()[-1]["time"] < gone + PERMITS_LAST_SECONDS), "fail closed"
        assert len(stage.accepted()) < 2_900, "Redis went half-way"
    finally:
        mailfleet.kubectl("scale", "deployment/redis", "--replicas=1")
    stage.until_complete(seconds=120)
    stage.balance()
    assert stage.count("uncertain") == 0


def test_an_image_that_is_missing_is_named_and_replaced_when_there_is_one(
    make_stage: Callable[..., Stage], mailfleet: House
) -> None:
    stage = make_stage("image-missing")
    stage.fill(300)
    stage.apply_relay()
    (environment,) = [
        e
        for c in mailfleet.kubectl.json("get", "deployment", OPERATOR)["spec"]["template"]["spec"]["containers"]
        for e in c["env"]
        if e["name"] == "MAILFLEET_SENDER_IMAGE"
    ]
    image, missing = environment["value"], "localhost/mailfleet/sender:missing"
    _sender_image(mailfleet, missing)
    try:
        stage.apply()
        stage.until_condition("Stalled", reason="ImageUnavailable", seconds=60)
        assert missing in stage.condition("Stalled")["message"]
        assert stage.accepted() == []
    finally:
        _sender_image(mailfleet, image)
    stage.until_complete(seconds=90)
    stage.balance()


def _sender_image(mailfleet: House, image: str) -> None:
    mailfleet.kubectl("set", "env", f"deployment/{OPERATOR}", f"MAILFLEET_SENDER_IMAGE={image}")
    mailfleet.kubectl("rollout", "status", f"deployment/{OPERATOR}", "--timeout=360s", seconds=100)
