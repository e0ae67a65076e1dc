"""Campaigns in Git with the real Argo CD, on a real node: whatever it does to them, nobody gets two mails.

The application controller works on the cluster where the campaigns send; who got what is read at the oracle.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from custom_resources import EXAMPLES, put
from e2e.house import holds_for
from gitops.application import ANNOTATION, Application
from gitops.lab import Lab
from mailfleet_demo.installation import OccupiedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from e2e.house import House
    from e2e.stage import Stage
    from services import RedisServer

FAST = "1000/s"


@pytest.fixture(scope="module")
def lab(mailfleet: House, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Argo CD at work on the cluster; afterwards nothing of it is left."""
    redis = redis_server.url.partition("//")[2].partition("/")[0]
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(Lab(tmp_path_factory.mktemp("argocd"), redis))
        except OccupiedError as error:
            pytest.skip(str(error))
        yield found


@pytest.fixture
def application(lab: Lab, make_stage: Callable[..., Stage], tmp_path: Path) -> Iterator[Callable[[Stage], Application]]:
    """Make the application of a stage's namespace. It goes before the stage does, or it would heal what is removed."""
    made: list[Application] = []

    def make(stage: Stage) -> Application:
        made.append(Application(lab, tmp_path, stage.name, stage.namespace))
        return made[-1]

    yield make
    for one in made:
        one.delete()


def annotated(manifest: dict[str, Any], **annotations: str) -> dict[str, Any]:
    named = {f"{ANNOTATION}/{name.replace('_', '-')}": value for name, value in annotations.items()}
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": named}}


def relay_file(stage: Stage, rate: str = "") -> dict[str, Any]:
    """The relay in the first wave."""
    manifest = annotated(stage.relay_manifest(), sync_wave="-1")
    return {**manifest, "spec": {**manifest["spec"], "limits": {"rate": rate or stage.rate}}}


def campaign_file(stage: Stage, *, wave: int = 1, senders: int = 3, **annotations: str) -> dict[str, Any]:
    """The campaign; how many senders it may have is what a commit may change at any time."""
    manifest = {**stage.manifest(), "spec": {**stage.spec, "senders": {"maxReplicas": senders}}}
    return annotated(manifest, sync_wave=str(wave), **annotations)


def live(stage: Stage) -> dict[str, Any]:
    """The campaign as the cluster has it; empty if it is not there."""
    return stage.board.campaign(stage.namespace, stage.campaign)


def uid(stage: Stage) -> str:
    return str(live(stage).get("metadata", {}).get("uid", ""))


def until_more(stage: Stage, count: int = 20) -> None:
    """Wait until it sends, and see that it is not over: what follows comes in its middle."""
    stage.until_accepted(len(stage.accepted()) + count, seconds=90)
    assert not stage.holds("Complete"), "too quick"


@contextlib.contextmanager
def unreadable(stage: Stage) -> Iterator[None]:
    """Nobody can read the table of recipients meanwhile: a planner waits."""
    with contextlib.closing(psycopg2.connect(stage.house.shop_url)) as connection, connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {stage.table} IN ACCESS EXCLUSIVE MODE")
        yield


def planner_waits(stage: Stage) -> bool:
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
    return bool(stage.sql(waiting, stage.table))


def test_argo_cd_knows_every_field_of_the_examples(lab: Lab) -> None:
    for name in ("application.yaml", "applicationset.yaml"):
        command = ("apply", "--dry-run=server", "--validate=strict", "-f", str(EXAMPLES / "gitops" / name))
        assert "(server dry run)" in lab.kubectl(*command)


def test_waves_go_on_while_the_first_campaign_sends_and_a_pause_by_action_outlives_self_heal(
    make_stage: Callable[..., Stage], application: Callable[[Stage], Application]
) -> None:
    one = make_stage("gitops", rate="20/s", campaign="one")
    two = make_stage("gitops-two", namespace=one.namespace, campaign="two", relay=one.relay)
    one.fill(1_500)
    two.fill(300)
    app = application(one)
    app.commit(relay=relay_file(one), one=campaign_file(one, wave=1), two=campaign_file(two, wave=2))
    with unreadable(one):
        app.create()
        one.until("its planner waits", lambda: planner_waits(one), seconds=60)
        assert not live(two), "until the first is planned"
    assert app.until("Synced", "Healthy")["operationState"]["phase"] == "Succeeded"
    until_more(one)

    app.act("suspend", "one")
    one.until_condition("Suspended", reason="BySpec", seconds=20)
    app.until("Synced", "Suspended")
    one.until("its pods have ended", lambda: not one.pods(), seconds=60)
    before = len(one.accepted())
    # Another drift is healed meanwhile: self-heal is at work, and leaves the pause alone.
    drift = ("--type=merge", "-p", '{"spec": {"senders": {"maxReplicas": 1}}}')
    generation = one.kubectl.json("patch", "emailcampaign", "one", *drift)["metadata"]["generation"]
    one.until("the drift is undone", lambda: live(one)["metadata"]["generation"] > generation, seconds=60)
    assert live(one)["spec"]["senders"]["maxReplicas"] == 3
    assert live(one)["spec"]["suspend"] is True
    assert len(one.accepted()) == before

    app.act("resume", "one")
    app.commit(relay=relay_file(one, FAST))
    for stage in (one, two):
        stage.until_complete()
        stage.balance()
        assert stage.count("uncertain") == 0
    app.until("Synced", "Healthy")


def test_pruned_restored_replaced_and_its_application_made_anew_nobody_gets_two_mails(
    make_stage: Callable[..., Stage], application: Callable[[Stage], Application]
) -> None:
    stage = make_stage("gitops-anew", rate="20/s")
    stage.fill(5_000)
    app = application(stage)
    app.commit(relay=relay_file(stage), news=campaign_file(stage))
    app.create()
    until_more(stage)

    app.commit(news=None)
    stage.until("it is pruned", lambda: not live(stage) and not stage.pods(), seconds=60)
    before = len(stage.accepted())
    assert holds_for(2, lambda: len(stage.accepted()) == before), "a pruned campaign sends nothing"
    app.commit(news=campaign_file(stage))
    until_more(stage)

    restored = uid(stage)
    app.commit(news=campaign_file(stage, senders=2, sync_options="Replace=true"))
    stage.until("it is replaced", lambda: live(stage)["spec"]["senders"]["maxReplicas"] == 2, seconds=60)
    assert uid(stage) == restored
    until_more(stage)

    app.commit(news=campaign_file(stage, senders=3, sync_options="Replace=true,Force=true"))
    stage.until("it is another object", lambda: uid(stage) not in {"", restored}, seconds=60)
    until_more(stage)

    forced = uid(stage)
    app.delete()
    stage.until("it is gone with its application", lambda: not live(stage), seconds=20)
    app.create()
    stage.until("it is there again", lambda: uid(stage) not in {"", forced}, seconds=60)
    until_more(stage)

    app.commit(relay=relay_file(stage, FAST))
    stage.until_complete()
    stage.balance()
    assert stage.count("uncertain") == 0

    once = stage.arrived()
    app.delete()
    app.create()
    app.until("Synced", "Healthy")
    stage.until_complete(seconds=30)
    assert holds_for(3, lambda: stage.holds("Complete") and stage.arrived() == once), "nothing is sent again"
    assert stage.pods() == []


def test_a_refused_change_is_seen_and_mended_by_the_next_commit(
    make_stage: Callable[..., Stage], application: Callable[[Stage], Application]
) -> None:
    stage = make_stage("gitops-refused", rate="20/s")
    stage.fill(1_500)
    app = application(stage)
    good = campaign_file(stage)
    app.commit(relay=relay_file(stage), news=good)
    app.create()
    until_more(stage)

    app.commit(news=put(campaign_file(stage), "spec.message", {**stage.spec["message"], "subject": "Another"}))
    remedy = "change runId together with it"
    app.until_refused(remedy)
    assert remedy in app.lab.cli("app", "get", app.name), "a person sees it"
    until_more(stage)

    app.commit(news=good, relay=relay_file(stage, FAST))
    app.until("Synced", "Healthy", seconds=120)
    stage.until_complete()
    stage.balance()
    assert stage.count("uncertain") == 0
