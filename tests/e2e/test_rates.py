"""What the limiter promises, seen from outside on a real node: shares of one relay, and an estimate that comes true."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from e2e.stage import API
from mailfleet_demo.progress import condition
from mailfleet_operator.status import ETA_STEP

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.stage import Stage

OTHER = "favoured"


def test_two_campaigns_share_a_relay_by_their_weights(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("shares", rate="200/s", spec={"weight": 25, "rangeSize": 5_000})  # no pod starts in between
    stage.fill(1_500)
    stage.sql(f"CREATE TABLE {OTHER} (id bigint PRIMARY KEY, email text, first_name text)")
    rows = f"SELECT g, 'user' || g || '@{OTHER}.example', 'Zoë' FROM generate_series(1, 4500) g"
    stage.sql(f"INSERT INTO {OTHER} {rows}")
    stage.apply_relay()
    table = {"databaseSecretRef": {"name": "shop-db", "key": "url"}, "name": OTHER}
    favoured = {**stage.spec, "weight": 75, "recipients": {"table": table}}
    stage.kubectl.apply({"apiVersion": API, "kind": "EmailCampaign", "metadata": {"name": OTHER}, "spec": favoured})
    stage.apply()

    def other() -> dict[str, Any]:
        found: dict[str, Any] = stage.board.campaign(stage.namespace, OTHER).get("status") or {}
        return found

    stage.until_complete(seconds=120)
    stage.until("so is the other", lambda: condition(other(), "Complete").get("status") == "True", seconds=120)
    times = [
        sorted(e["time"] for e in of) for of in (stage.accepted(), stage.house.oracle.accepted(f"{OTHER}.example"))
    ]
    assert [len(of) for of in times] == [1_470, 4_500]
    begin, end = max(of[200] for of in times), min(of[-1] for of in times)
    light, heavy = (sum(begin < t < end for t in of) for of in times)
    assert light + heavy > 1_500, "both sent for a while"
    assert 0.73 < heavy / (light + heavy) < 0.77


def test_the_estimate_of_a_steady_campaign_comes_true(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("estimate", rate="80/s")
    stage.fill(6_000)
    stage.apply_relay()
    stage.apply()
    estimates = []
    for share in (0.25, 0.5, 0.75):
        stage.until(f"{share:.0%} are sent", lambda share=share: stage.count("sent") >= share * 6_000, seconds=60)
        estimates.append((datetime.now().astimezone(), datetime.fromisoformat(stage.status["estimatedCompletionTime"])))
    stage.until_complete()
    stage.balance()
    ended = datetime.fromisoformat(stage.status["completionTime"])
    for moment, estimate in estimates:
        off, left = abs((estimate - ended).total_seconds()), (ended - moment).total_seconds()
        assert off <= 0.2 * left + ETA_STEP, "within 20 %, and what it is rounded to"
