"""A campaign's life as the operator leads it, on a real API server with a real Job controller."""

from __future__ import annotations

import json
import time
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any

import pytest

import custom_resources
from kube import KubectlError
from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.ledger import OwnedRange, Positions
from operator_hand import Hand, OperatorProcess, environment
from services import wait_for

if TYPE_CHECKING:
    from kube import ControlPlane
    from services import RedisServer

Manifest = dict[str, Any]


def campaign(**spec: Any) -> Manifest:
    body = custom_resources.campaign("autumn")
    body["spec"].update(spec)
    return body


def relay(rate: str = "1000/s") -> Manifest:
    body = custom_resources.relay("ses")
    body["spec"]["limits"]["rate"] = rate
    return body


def planned(hand: Hand, count: int = 1000, **spec: Any) -> None:
    """A campaign that has its plan."""
    hand.people(count)
    hand.apply(relay(), campaign(**spec))
    assert hand.plan() == 0


def sending(hand: Hand, count: int = 2000, **spec: Any) -> Manifest:
    """A campaign whose Main wave has its Job; the Job."""
    planned(hand, count, **{"rangeSize": 500, **spec})
    return wait_for("a send Job", lambda: (hand.jobs("sender") or [None])[-1], interval=0.2)


def test_from_apply_to_complete(hand: Hand) -> None:
    job = sending(hand, 2000)
    assert job["spec"]["completions"] == 4
    assert job["spec"]["completionMode"] == "Indexed"
    hand.wait_for_reason("autumn", "Planned", "Planned")
    hand.send_all("autumn")
    hand.wait_for_reason("autumn", "Complete", "Complete")
    status = hand.status("autumn")
    assert status["progress"] == "2000/2000"
    assert status["recipients"]["sent"] == 2000
    assert status["phase"] == "Complete"
    assert status["startTime"]
    assert status["completionTime"]
    assert len(json.dumps(status)) < 4096
    hand.kubectl("wait", "--for=condition=Complete", "emailcampaign/autumn", "--timeout=60s")
    assert "Complete" in hand.kubectl("get", "emailcampaigns")
    assert len(hand.jobs("sender")) == 1


def test_suspended_at_creation_stops_after_the_plan_and_goes_on_when_resumed(hand: Hand) -> None:
    planned(hand, suspend=True)
    hand.wait_for_reason("autumn", "Suspended", "BySpec")
    status = hand.status("autumn")
    assert status["recipients"]["planned"] == status["recipients"]["remaining"] == 1000
    assert "startTime" not in status
    said = hand.condition("autumn", "Planned")["message"]
    assert said == (
        "1000 recipients, 0 of them skipped; at the relay's limit the others take 1 s; most at example.com 100 %"
    )
    assert not hand.jobs("sender")
    hand.patch("autumn", {"suspend": False})
    wait_for("a send Job", lambda: hand.jobs("sender"), interval=0.2)
    assert hand.status("autumn")["startTime"]


def test_a_plan_says_why_recipients_are_skipped(hand: Hand) -> None:
    hand.people(10)
    hand.sql("UPDATE subscribers SET email = 'nobody' WHERE id <= 2")
    hand.sql("UPDATE subscribers SET email = 'P10@example.com' WHERE id = 9")
    hand.apply(relay(), campaign(suspend=True))
    assert hand.plan() == 0
    said = hand.wait_for_reason("autumn", "Planned", "Planned")["message"]
    assert said.startswith(
        "10 recipients, 3 of them skipped (2 InvalidAddress, 1 DuplicateAddress); at the relay's limit"
    )


def test_a_typo_found_before_the_start_is_mended_by_an_edit(hand: Hand) -> None:
    planned(hand, suspend=True)
    hand.wait_for_reason("autumn", "Planned", "Planned")
    hand.patch("autumn", {"message": {"subject": "Better"}})
    first = hand.wait_for_reason("autumn", "Planned", "Planning")
    assert first["status"] == "False"
    assert hand.plan() == 0
    hand.wait_for_reason("autumn", "Planned", "Planned")


def test_after_the_start_the_api_server_refuses_an_edit(hand: Hand) -> None:
    sending(hand)
    with pytest.raises(KubectlError, match="cannot change once sending has begun"):
        hand.patch("autumn", {"message": {"subject": "Too late"}})


def test_suspend_and_resume_reach_the_job_and_the_limiter(hand: Hand, redis_server: RedisServer) -> None:
    job = sending(hand)["metadata"]["name"]
    hand.patch("autumn", {"suspend": True})
    wait_for("the Job is suspended", lambda: hand.get("job", job)["spec"]["suspend"], interval=0.2)
    hand.wait_for_reason("autumn", "Suspended", "BySpec")
    wait_for("its pods are gone", lambda: not hand.pods(job), interval=0.2)
    hand.patch("autumn", {"suspend": False})
    wait_for("the Job goes on", lambda: not hand.get("job", job)["spec"]["suspend"], interval=0.2)
    hand.send_all("autumn")
    hand.wait_for_reason("autumn", "Complete", "Complete")


def test_the_operator_killed_and_restarted_makes_no_second_job(hand: Hand, operator: OperatorProcess) -> None:
    job = sending(hand)
    operator.kill()
    hand.send(job, 0)
    operator.start()
    wait_for("the status goes on", lambda: hand.status("autumn")["recipients"]["sent"] == 500, interval=0.2)
    assert [j["metadata"]["uid"] for j in hand.jobs("sender")] == [job["metadata"]["uid"]]
    assert len(hand.jobs("planner")) == 1


def test_killed_between_the_ledgers_start_and_the_job_it_finds_the_wave(hand: Hand, operator: OperatorProcess) -> None:
    job = sending(hand)
    operator.kill()
    hand.kubectl("delete", "job", job["metadata"]["name"], "--cascade=background")
    operator.start()
    again = wait_for("the Job again", lambda: hand.jobs("sender"), interval=0.2)
    assert again[0]["metadata"]["name"] == job["metadata"]["name"]
    assert again[0]["metadata"]["uid"] != job["metadata"]["uid"]


def test_deleted_and_applied_again_it_goes_on_where_it_was(hand: Hand) -> None:
    job = sending(hand)
    hand.send(job, 0)
    wait_for("500 are sent", lambda: hand.status("autumn").get("recipients", {}).get("sent") == 500, interval=0.2)
    hand.kubectl("delete", "emailcampaign", "autumn", "--timeout=60s")
    hand.apply(campaign(rangeSize=500))
    wait_for("it knows what was sent", lambda: hand.status("autumn").get("recipients", {}).get("sent"), interval=0.2)
    jobs = wait_for(
        "a Repair wave of what is left",
        lambda: [j for j in hand.jobs("sender") if j["spec"]["completions"] == 3],
        interval=0.2,
    )
    for index in range(3):
        hand.send(jobs[0], index)
    hand.finish(jobs[0]["metadata"]["name"])
    hand.wait_for_reason("autumn", "Complete", "Complete")
    assert hand.status("autumn")["recipients"]["sent"] == 2000
    assert not hand.jobs("planner", "autumn")


def test_complete_stays_complete_when_it_is_deleted_and_applied_again(hand: Hand) -> None:
    sending(hand, 500)
    hand.send_all("autumn")
    hand.wait_for_reason("autumn", "Complete", "Complete")
    hand.kubectl("delete", "emailcampaign", "autumn", "--timeout=60s")
    wait_for("its Jobs are gone", lambda: not hand.list("jobs", "mailfleet.dev/campaign"), interval=0.2)
    hand.apply(campaign(rangeSize=500))
    hand.wait_for_reason("autumn", "Complete", "Complete")
    assert hand.status("autumn")["recipients"]["sent"] == 500
    assert not hand.list("jobs", "mailfleet.dev/campaign")


def test_a_new_run_id_sends_again_to_all(hand: Hand) -> None:
    sending(hand, 500)
    hand.send_all("autumn")
    hand.wait_for_reason("autumn", "Complete", "Complete")
    hand.patch("autumn", {"runId": "2"})
    wait_for("a second planner", lambda: len(hand.jobs("planner")) == 2, interval=0.2)
    assert hand.plan() == 0
    wait_for("a second send Job", lambda: len(hand.jobs("sender")) == 2, interval=0.2)
    status = hand.status("autumn")
    assert status["runId"] == "2"


def test_the_same_run_id_with_another_message_is_refused(hand: Hand) -> None:
    sending(hand)
    hand.kubectl("delete", "emailcampaign", "autumn", "--timeout=60s")
    wait_for("its Jobs are gone", lambda: not hand.list("jobs", "mailfleet.dev/campaign"), interval=0.2)
    other = campaign(rangeSize=500)
    other["spec"]["message"]["subject"] = "Something else"
    hand.apply(other)
    found = hand.wait_for_reason("autumn", "Planned", "RunIdReused")
    assert "spec.runId" in found["message"]
    assert not hand.list("jobs", "mailfleet.dev/campaign")
    hand.patch("autumn", {"message": {"subject": "Autumn"}})
    hand.wait_for_reason("autumn", "Planned", "Planned")


def test_re_created_with_another_run_id_the_older_run_is_closed_first(hand: Hand) -> None:
    job = sending(hand)
    hand.send(job, 0, upto=100)
    hand.kubectl("delete", "emailcampaign", "autumn", "--timeout=60s")
    hand.apply(campaign(rangeSize=500, runId="2"))
    assert hand.plan() == 0
    wait_for("a send Job of run 2", lambda: hand.list("jobs", "mailfleet.dev/run-id=2,mailfleet.dev/wave"))
    with hand.engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT run_id, state, sent, cancelled FROM run WHERE namespace = %s ORDER BY id", (hand.namespace,)
        ).all()
    assert [tuple(r) for r in rows] == [("1", "Superseded", 100, 1900), ("2", "Open", 0, 0)]


def test_deferred_recipients_are_sent_again_in_a_retry_wave(hand: Hand) -> None:
    sending(hand, 500)
    hand.send_all("autumn", kind=OutcomeKind.DEFERRED)
    wait_for("a Retry wave", lambda: len(hand.jobs("sender")) == 2, interval=0.2)
    assert hand.status("autumn")["recipients"]["sent"] == 0
    (retry,) = [j for j in hand.jobs("sender") if j["metadata"]["labels"]["mailfleet.dev/wave"] == "2"]
    hand.send(retry, 0)
    hand.finish(retry["metadata"]["name"])
    hand.wait_for_reason("autumn", "Complete", "Complete")
    assert hand.status("autumn")["recipients"]["sent"] == 500


def test_a_job_deleted_by_somebody_is_repaired(hand: Hand) -> None:
    job = sending(hand)
    hand.send(job, 0)
    hand.kubectl("delete", "job", job["metadata"]["name"])
    (repair,) = wait_for(
        "a Repair wave", lambda: [j for j in hand.jobs("sender") if j["spec"]["completions"] == 3], interval=0.2
    )
    assert environment(repair["spec"]["template"])["MAILFLEET_WAVE"] == "2"


def test_what_a_dead_sender_left_open_is_settled_while_suspended(hand: Hand) -> None:
    job = sending(hand)
    variables = environment(job["spec"]["template"])
    held = OwnedRange.acquire(
        hand.engine,
        run=int(variables["MAILFLEET_RUN"]),
        wave=1,
        index=0,
        owner=uuid.uuid4(),
        timing=hand.timing,
    )
    assert isinstance(held, OwnedRange)
    held.claim(7, Positions.span(0, 7))
    hand.patch("autumn", {"suspend": True})
    wait_for(
        "7 are uncertain",
        lambda: hand.status("autumn").get("recipients", {}).get("uncertain") == 7,
        seconds=40,
        interval=0.2,
    )


def test_deleting_a_campaign_never_hangs_even_without_the_operator(hand: Hand, operator: OperatorProcess) -> None:
    sending(hand)
    operator.kill()
    hand.kubectl("delete", "emailcampaign", "autumn", "--timeout=60s")
    assert "autumn" not in hand.kubectl("get", "emailcampaigns", check=False)


def reads(plane: ControlPlane) -> float:
    """GET and LIST requests so far for what the operator looks at."""
    found = 0.0
    for line in plane.kubectl("get", "--raw", "/metrics").splitlines():
        if not line.startswith("apiserver_request_total{"):
            continue
        kinds = ("emailcampaigns", "emailrelays", "jobs", "pods", "nodes")
        if any(f'verb="{v}"' in line for v in ("GET", "LIST")) and any(f'resource="{k}"' in line for k in kinds):
            found += float(line.rsplit(" ", 1)[1])
    return found


def test_a_look_asks_the_api_server_nothing(hand: Hand) -> None:
    planned(hand, suspend=True)
    hand.wait_for_reason("autumn", "Suspended", "BySpec")
    before = reads(hand.plane)
    assert before > 0
    time.sleep(4)  # eight ticks
    assert reads(hand.plane) == before


def test_it_says_that_it_is_alive(operator: OperatorProcess, hand: Hand) -> None:
    def probe() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{operator.port}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    wait_for("the liveness endpoint", probe, interval=0.3)


def test_told_to_stop_it_ends_by_itself(operator: OperatorProcess, hand: Hand) -> None:
    planned(hand, suspend=True)
    assert operator.stop() == 0
