"""A campaign's life on a real node, as long as nobody does it any harm."""

from __future__ import annotations

import base64
from collections import Counter
from email import message_from_bytes, policy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from e2e.house import holds_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import EmailMessage

    from e2e.house import House
    from e2e.stage import Stage

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_campaign_of_5000_completes_and_every_key_has_one_verdict(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("five-thousand")
    stage.fill(5_000)
    stage.apply_relay()
    stage.apply()
    stage.kubectl("wait", "emailcampaign/news", "--for=condition=Complete", "--timeout=480s", seconds=490)
    stage.until_complete(seconds=10)
    stage.balance()
    assert (stage.count("planned"), stage.count("sent"), stage.count("skipped")) == (5_000, 4_900, 100)
    assert stage.peak() <= 1_000 * 1.05 + 100
    line = dict(zip(*(row.split() for row in stage.kubectl("get", "emailcampaigns").splitlines()), strict=False))
    assert (line["NAME"], line["PHASE"], line["PROGRESS"], line["SENT"]) == ("news", "Complete", "5000/5000", "4900")


def test_explain_describes_every_field_of_the_spec(mailfleet: House) -> None:
    said = mailfleet.kubectl("explain", "emailcampaign.spec")
    fields = (
        "runId suspend cancel relayRef recipients message schedule senders canary brake retry retryFailed onUncertain"
    )
    for field in fields.split():
        assert f"\n  {field}\t" in said
    assert "<no description>" not in mailfleet.kubectl("explain", "emailcampaign", "--recursive=false")
    assert "Names this sending" in mailfleet.kubectl("explain", "emailcampaign.spec.runId")


def test_a_relay_that_defers_everybody_first_is_tried_again_and_takes_all(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("greylisted")
    stage.fill(600)
    reply = "451 4.7.1 greylisted, come back later"
    rule = {"phase": "rcpt", "reply": reply, "once_per_recipient": True, "recipient": f"@{stage.domain}$"}
    stage.house.oracle.behave(rule)
    stage.apply_relay()
    stage.apply(retry={"initialDelaySeconds": 3})
    stage.until("some are deferred", lambda: stage.count("deferred") > 0, seconds=60)
    stage.until_complete(seconds=120)
    stage.balance()
    assert stage.count("sent") == 588
    assert stage.status["wave"]["kind"] == "Retry"


def test_suspended_it_sends_nothing_more_and_resumed_it_completes(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("paused", rate="200/s")
    stage.fill(3_000)
    stage.apply_relay()
    stage.apply()
    stage.until_accepted(400)
    stage.apply(suspend=True)
    stage.until_condition("Suspended", reason="BySpec", seconds=20)
    stage.until("its pods have ended", lambda: not stage.pods(), seconds=60)
    before = len(stage.accepted())
    assert before < 2_500, "it was paused half-way"
    assert holds_for(6, lambda: len(stage.accepted()) == before), "nothing is accepted while suspended"
    stage.until("what was in flight is accounted for", lambda: stage.count("sent") == before, seconds=20)
    assert stage.count("uncertain") == 0
    stage.apply(suspend=False)
    stage.until_complete(seconds=90)
    stage.balance()


def test_suspended_at_creation_it_is_planned_only(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("planned-only")
    stage.fill(500)
    stage.apply_relay()
    stage.apply(suspend=True)
    stage.until_condition("Planned", seconds=60)
    stage.until("all is counted", lambda: stage.count("remaining") == 490, seconds=20)
    assert holds_for(4, lambda: not stage.accepted())
    assert "startTime" not in stage.status
    stage.apply(suspend=False)
    stage.until_complete()
    stage.balance()


def test_deleted_and_applied_again_half_way_it_goes_on(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("recreated", rate="200/s")
    stage.fill(3_000)
    stage.apply_relay()
    stage.apply()
    stage.until_accepted(400)
    stage.delete()
    stage.apply()
    stage.until_complete(seconds=120)
    stage.balance()
    assert stage.count("uncertain") == 0


def test_complete_it_stays_complete_and_only_a_new_run_id_sends_again(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("again")
    stage.fill(300)
    stage.apply_relay()
    stage.apply()
    stage.until_complete()
    stage.balance()
    once = stage.arrived()
    stage.delete()
    stage.until("it is gone", lambda: not stage.status, seconds=20)
    stage.apply()
    stage.until_complete(seconds=30)
    assert holds_for(5, lambda: stage.holds("Complete") and stage.arrived() == once), "nothing is sent again"
    assert stage.pods() == []
    stage.apply(runId="2")
    stage.until(
        "the second run is complete", lambda: stage.status.get("runId") == "2" and stage.holds("Complete"), seconds=60
    )
    assert stage.arrived() == Counter(dict.fromkeys(stage.expected().values(), 2))
    assert (stage.count("sent"), stage.count("planned")) == (294, 300)
    with pytest.raises(AssertionError, match="duplicates"):  # the balance of one run sees the other's mails
        stage.balance(run_id="2")


def test_what_a_desk_previews_with_files_of_a_config_map_is_what_arrives(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("previewed")
    stage.fill(20)
    stage.apply_relay()
    logo = base64.b64encode(bytes(range(256))).decode()
    files = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files"}}
    stage.kubectl.apply({**files, "data": {"terms.txt": "as agreed\n"}, "binaryData": {"logo.png": logo}})
    attachments = [
        {"name": "terms.txt", "configMapKeyRef": {"name": "files", "key": "terms.txt"}},
        {"name": "logo.png", "contentId": "logo", "configMapKeyRef": {"name": "files", "key": "logo.png"}},
    ]
    html = "<p>Dear {{ first_name | default('friend') }}</p><img src='cid:logo'>"
    stage.apply(message={**stage.spec["message"], "html": html, "attachments": attachments}, suspend=True)
    stage.until_condition("Planned", seconds=60)
    stage.kubectl.apply({**files, "data": {"terms.txt": "changed too late"}, "binaryData": {"logo.png": logo}})

    desk = yaml.safe_load((EXAMPLES / "desk.yaml").read_text())
    (planner,) = stage.kubectl.json("get", "jobs", "--selector", "app.kubernetes.io/component=planner")["items"]
    desk["spec"]["containers"][0]["image"] = planner["spec"]["template"]["spec"]["containers"][0]["image"]
    stage.kubectl.apply(desk)
    stage.kubectl("wait", "pod/mailfleet-desk", "--for=condition=Ready", "--timeout=240s", seconds=250)
    call = ("exec", "mailfleet-desk", "--", "mailfleet-sender")
    campaign = f"{stage.namespace}/{stage.campaign}"
    seen = read(stage.kubectl(*call, "preview", campaign, "--key", "1").encode())
    tester = f"me@tester.{stage.domain}"
    stage.kubectl(*call, "test", campaign, "--relay", "relay", "--to", tester, "--key", "1")
    tested = read(stage.house.oracle.newest(tester))
    assert holds_for(2, lambda: not stage.accepted()), "suspended, it sends nothing"

    stage.apply(suspend=False)
    stage.until_complete()
    stage.balance()
    arrived = read(stage.house.oracle.newest(f"user1@{stage.domain}"))
    assert {p.get_filename(): p.get_content() for p in arrived.iter_attachments()} == {"terms.txt": "as agreed\n"}
    assert [p.get_content() for p in arrived.walk() if p["Content-ID"]] == [bytes(range(256))]
    del seen["Date"], arrived["Date"]
    assert seen.as_bytes() == arrived.as_bytes()
    assert (tested["Subject"], str(tested["To"])) == (arrived["Subject"], tester)


def read(octets: bytes) -> EmailMessage:
    return message_from_bytes(octets, policy=policy.SMTP)
