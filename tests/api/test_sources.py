"""Where a campaign's recipients and its mail come from, as the operator leads it: files, templates, what is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import custom_resources
from services import wait_for

if TYPE_CHECKING:
    from operator_hand import Hand

Manifest = dict[str, Any]
VIP = {"csv": {"configMapKeyRef": {"name": "vip", "key": "people.csv"}}}


def campaign(**spec: Any) -> Manifest:
    body = custom_resources.campaign("autumn")
    body["spec"].update(spec)
    return body


def config_map(name: str, **data: str) -> Manifest:
    named = {key.replace("_", "."): value for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": named}


def test_a_file_of_a_config_map_is_planned_counted_and_sent(hand: Hand) -> None:
    people = "email,first_name\n" + "".join(f"p{n}@example.com,P\n" for n in range(1, 19)) + "P1@example.com,P\nx,P\n"
    hand.apply(
        custom_resources.relay("ses"), config_map("vip", people_csv=people), campaign(recipients=VIP, suspend=True)
    )
    assert hand.plan() == 0
    said = hand.wait_for_reason("autumn", "Planned", "Planned")["message"]
    counts, as_of, forecast = said.split("; ", 2)
    assert counts == "20 recipients, 2 of them skipped (1 DuplicateAddress, 1 InvalidAddress at line 21)"
    assert as_of.startswith("the file as of 2")
    assert forecast == "at the relay's limit the others take 1 s; most at example.com 100 %"
    hand.apply(config_map("vip", people_csv="email\n"))  # too late, as it says to the end
    hand.patch("autumn", {"suspend": False})
    wait_for("a send Job", lambda: hand.jobs("sender"), interval=0.2)
    hand.send_all("autumn")
    hand.wait_for_reason("autumn", "Complete", "Complete")
    assert hand.condition("autumn", "Planned")["message"] == f"20 recipients, 2 of them skipped; {as_of}"
    status = hand.status("autumn")
    assert (status["recipients"]["planned"], status["recipients"]["sent"], status["recipients"]["skipped"]) == (
        20,
        18,
        2,
    )
    assert "example.com" not in json.dumps(status)


def test_a_config_map_edited_before_the_start_is_read_again_when_the_campaign_is_edited(hand: Hand) -> None:
    hand.apply(
        custom_resources.relay("ses"),
        config_map("vip", people_csv="email\na@example.com\n"),
        campaign(recipients=VIP, suspend=True),
    )
    assert hand.plan() == 0
    assert hand.wait_for_reason("autumn", "Planned", "Planned")["message"].startswith("1 recipients")
    hand.apply(config_map("vip", people_csv="email\na@example.com\nb@example.com\n"))
    hand.patch("autumn", {"recipients": {"duplicateAddresses": "Send"}})
    hand.wait_for_reason("autumn", "Planned", "Planning")
    assert hand.plan() == 0
    assert hand.wait_for_reason("autumn", "Planned", "Planned")["message"].startswith("2 recipients")


def test_a_faulty_file_is_named_with_its_lines_and_planned_once_it_is_mended(hand: Hand) -> None:
    faulty = config_map("vip", people_csv="email,first_name\na@example.com,A\nb@example.com\n")
    hand.apply(custom_resources.relay("ses"), faulty, campaign(recipients=VIP, suspend=True))
    assert hand.plan() == 78
    said = hand.wait_for_reason("autumn", "Planned", "CsvInvalid")
    assert said["status"] == "False"
    assert said["message"] == "recipients.csv: 1 row cannot be used: line 3 has 1 field, the header 2"
    hand.apply(config_map("vip", people_csv="email,first_name\na@example.com,A\n"))
    assert hand.plan() == 0  # by itself, after a while
    hand.wait_for_reason("autumn", "Planned", "Planned")


def test_a_missing_template_and_a_missing_file_are_named_with_their_fields(hand: Hand) -> None:
    message = {"from": "a@example.com", "templateRef": {"name": "texts"}}
    hand.apply(custom_resources.relay("ses"), config_map("vip", people_csv="email\na@example.com\n"))
    hand.apply(campaign(recipients=VIP, message=message, suspend=True))
    assert hand.plan() == 75
    said = hand.wait_for_reason("autumn", "Planned", "ConfigMapNotFound")["message"]
    assert said.startswith("message.templateRef: there is no ConfigMap texts")
    assert "create it" in said
    hand.apply(config_map("texts", subject="Hello", text="Dear {{ first_name }}"))
    hand.patch("autumn", {"runId": "2"})  # an edit is planned at once
    assert hand.plan() == 78
    said = hand.wait_for_reason("autumn", "Planned", "ColumnNotFound")["message"]
    assert said.startswith("message names the column 'first_name', which the file has not. Columns: email")
