"""Bad input: each ends in a condition that names the cause and the remedy, with nothing sent; mended, it goes on.

All of them live at the same time, each in its own namespace: most of their life is waiting.
"""

from __future__ import annotations

import re
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from e2e.stage import DATABASE, RELAY, Stage
from mailfleet_operator.events import PAUSE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from e2e.board import Board
    from e2e.house import House

ROWS = 200
AT_ONCE = 5
MINUTES = 15


@dataclass(frozen=True, slots=True)
class Trouble:
    """One kind of bad input.

    Attributes:
        make: prepares namespace, table, relay and campaign, with the fault.
        mend: what a person does after reading the message.
        reason: of the condition Stalled.
        says: what its message must hold, a regular expression: the cause by name and the remedy.
    """

    make: Callable[[Stage], None]
    mend: Callable[[Stage], object]
    reason: str
    says: str


def everything(stage: Stage, *, key: str = "id bigint PRIMARY KEY") -> None:
    """All that a campaign needs, but the campaign."""
    stage.prepare()
    stage.fill(ROWS, key=key)
    stage.apply_relay()


def without_relay(stage: Stage) -> None:
    stage.prepare()
    stage.fill(ROWS)
    stage.apply()


def without_sender_secret(stage: Stage) -> None:
    stage.prepare(sender_secret=False)
    stage.fill(ROWS)
    stage.apply_relay()
    stage.apply()


def without_database_secret(stage: Stage) -> None:
    stage.prepare(database_secret=False)
    stage.fill(ROWS)
    stage.apply_relay()
    stage.apply()


def without_table(stage: Stage) -> None:
    stage.prepare()
    stage.apply_relay()
    stage.apply()


def without_email(stage: Stage) -> None:
    everything(stage)
    stage.sql(f"ALTER TABLE {stage.table} RENAME email TO mail")
    stage.apply()


def with_a_null_key(stage: Stage) -> None:
    everything(stage, key="id bigint")
    stage.sql(f"UPDATE {stage.table} SET id = NULL WHERE id = 100")
    stage.apply()


def with_a_doubled_key(stage: Stage) -> None:
    everything(stage, key="id bigint")
    stage.sql(f"UPDATE {stage.table} SET id = 99 WHERE id = 100")
    stage.apply()


def with_an_unknown_column(stage: Stage) -> None:
    everything(stage)
    stage.apply(message={**stage.spec["message"], "subject": "{{ frist_name }}, our news"})


def with_nulls_without_default(stage: Stage) -> None:
    everything(stage)
    stage.apply(message={**stage.spec["message"], "subject": "{{ first_name }}, our news"})


def with_a_default_again(stage: Stage) -> None:
    stage.apply(message={**stage.spec["message"], "subject": "{{ first_name | default('Hello') }}, our news"})


def with_a_closed_database(stage: Stage) -> None:
    everything(stage)
    stage.secret(DATABASE, {"url": stage.house.shop_inside.replace(":5432/", ":5433/")})
    stage.apply()


def with_a_wrong_password(stage: Stage) -> None:
    everything(stage)
    stage.secret(DATABASE, {"url": re.sub(":[a-z0-9]+@", ":wrongpassword@", stage.house.shop_inside)})
    stage.apply()


def with_the_right_url(stage: Stage) -> None:
    stage.secret(DATABASE, {"url": stage.house.shop_inside})


def with_a_closed_relay(stage: Stage) -> None:
    (pod,) = stage.house.kubectl.json("get", "pods", "--selector", "app.kubernetes.io/name=sink")["items"]
    service = stage.relay["host"]
    # The pod's own address: a Service drops what comes to a port that it does not have, and connecting takes 30 s.
    stage.relay |= {"host": pod["status"]["podIP"], "port": 2526}
    everything(stage)
    stage.apply()
    stage.relay |= {"host": service, "port": 2525}


def with_a_quota(stage: Stage) -> None:
    everything(stage)
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
    stage.kubectl.apply({**quota, "spec": {"hard": {"pods": "0"}}})
    stage.apply()


def with_the_relay_gone_once_more(stage: Stage) -> None:
    """What stalls it again, a minute later or more, is the same Event with a count."""

    def told() -> dict[str, Any]:
        events = stage.kubectl.json("get", "events", "--field-selector=reason=RelayNotFound")["items"]
        return events[0] if len(events) == 1 else {}

    stage.apply(suspend=True)
    stage.apply_relay()
    stage.until_condition("Stalled", "False", seconds=60)
    said = datetime.fromisoformat(told()["lastTimestamp"])
    stage.until("it may be told again", lambda: datetime.now(UTC) > said + PAUSE, seconds=90)
    stage.kubectl("delete", "emailrelay", RELAY)
    stage.until("it is told again", lambda: told().get("count") == 2, seconds=60)
    stage.apply_relay()
    stage.apply(suspend=False)


TROUBLES: Mapping[str, Trouble] = {
    "no-relay": Trouble(without_relay, Stage.apply_relay, "RelayNotFound", f"EmailRelay {RELAY}.* create it"),
    "relay-gone-again": Trouble(without_relay, with_the_relay_gone_once_more, "RelayNotFound", RELAY),
    "no-sender-secret": Trouble(
        without_sender_secret,
        lambda stage: stage.secret("mailfleet", stage.house.sender_secret),
        "CredentialsMissing",
        'secret "mailfleet" not found: create it',
    ),
    "no-database-secret": Trouble(
        without_database_secret, with_the_right_url, "CredentialsMissing", f'secret "{DATABASE}" not found: create it'
    ),
    "no-table": Trouble(without_table, lambda stage: stage.fill(ROWS), "TableNotFound", "no_table"),
    "no-column": Trouble(
        without_email,
        lambda stage: stage.sql(f"ALTER TABLE {stage.table} RENAME mail TO email"),
        "ColumnNotFound",
        "email",
    ),
    "null-key": Trouble(
        with_a_null_key,
        lambda stage: stage.sql(f"UPDATE {stage.table} SET id = 100 WHERE id IS NULL"),
        "KeyNull",
        "'id' is NULL in 1 rows: fill them",
    ),
    "doubled-key": Trouble(
        with_a_doubled_key,
        lambda stage: stage.sql(f"UPDATE {stage.table} SET id = 100 WHERE email LIKE 'user100@%'"),
        "KeyNotUnique",
        "'id' holds 1 doubled values.* remove",
    ),
    "unknown-column": Trouble(
        with_an_unknown_column, with_a_default_again, "ColumnNotFound|TemplateInvalid", "frist_name"
    ),
    "null-column": Trouble(
        with_nulls_without_default, with_a_default_again, "TemplateInvalid", "first_name' is NULL in 2 rows.*default"
    ),
    "database-closed": Trouble(with_a_closed_database, with_the_right_url, "DatabaseUnavailable", "5433|Secret|reach"),
    "database-refuses": Trouble(with_a_wrong_password, with_the_right_url, "DatabaseRefused", "Secret|password"),
    "relay-closed": Trouble(with_a_closed_relay, Stage.apply_relay, "RelayUnavailable", "2526.*check"),
    "quota": Trouble(
        with_a_quota,
        lambda stage: stage.kubectl("delete", "resourcequota", "none"),
        "PodsRejected",
        "raise the ResourceQuota.*exceeded quota",
    ),
}


@pytest.fixture(scope="module")
def lives(mailfleet: House, board: Board, request: pytest.FixtureRequest) -> Iterator[Mapping[str, Future[Stage]]]:
    """The whole life of each trouble asked for: fault, condition, remedy, Complete. A failure is its future's."""
    wanted = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")}
    stages = {name: Stage(mailfleet, board, name) for name in TROUBLES if name in wanted}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(live, stage, TROUBLES[name]) for name, stage in stages.items()}
    for stage in stages.values():
        stage.kubectl("delete", "namespace", stage.namespace, "--wait=false", "--ignore-not-found")
    assert board.failure is None
    assert board.broken == [], "planned is the sum of all other terms, at every moment"


def live(stage: Stage, trouble: Trouble) -> Stage:
    """One trouble from its making to its end.

    Raises:
        AssertionError: it does not go as it should.
    """
    trouble.make(stage)
    reasons = trouble.reason.split("|")
    stage.until(
        f"Stalled for {trouble.reason}",
        lambda: any(stage.holds("Stalled", reason=reason) for reason in reasons),
        seconds=100,
    )
    message = stage.condition("Stalled")["message"]
    assert re.search(trouble.says, message), message
    assert len(message.encode()) <= 256
    assert stage.accepted() == []
    assert stage.count("sent") == 0
    trouble.mend(stage)
    stage.until_complete(seconds=150)
    stage.balance()
    return stage


@pytest.mark.timeout(60 * MINUTES * 2)
@pytest.mark.parametrize("name", TROUBLES)
def test_bad_input_is_named_with_its_remedy_and_mended_the_campaign_goes_on(
    lives: Mapping[str, Future[Stage]], name: str
) -> None:
    stage = lives[name].result(timeout=60 * MINUTES)
    assert stage.count("sent") == ROWS * 98 // 100
