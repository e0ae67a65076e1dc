"""Recipients that are no table, on a real node."""

from __future__ import annotations

from collections import Counter
from email import message_from_bytes, policy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.stage import Stage


def test_a_file_of_a_config_map_is_delivered_row_by_row(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("csv")
    rows = [f'user{n}@{stage.domain},"Zoë ""{n}"", the\nGreat"' for n in range(500)]
    people = "\ufeffemail,first_name\r\n" + "\r\n".join(
        [*rows, f"USER7@{stage.domain},again", f"nobody.{stage.domain},x"]
    )
    vip = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "vip"}}
    stage.kubectl.apply({**vip, "data": {"people.csv": people}})
    stage.apply_relay()
    stage.apply(recipients={"csv": {"configMapKeyRef": {"name": "vip", "key": "people.csv"}}}, suspend=True)
    stage.until_condition("Planned", seconds=60)
    said = stage.condition("Planned")["message"]
    assert "502 recipients, 2 of them skipped (1 DuplicateAddress, 1 InvalidAddress at line 1003)" in said
    assert f"most at {stage.domain} 100 %" in said
    stage.kubectl.apply({**vip, "data": {"people.csv": "email,first_name\n"}})
    stage.apply(suspend=False)
    stage.until_complete()
    assert stage.arrived() == Counter(f"user{n}@{stage.domain}" for n in range(500))
    assert (stage.count("planned"), stage.count("sent"), stage.count("skipped")) == (502, 500, 2)
    mail = message_from_bytes(stage.house.oracle.newest(f"user499@{stage.domain}"), policy=policy.SMTP)
    assert 'Dear Zoë "499", the\r\nGreat,' in mail.get_content().replace("\n", "\r\n").replace("\r\r", "\r")
