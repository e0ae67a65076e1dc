"""Campaigns in Git, walked with the real Argo CD: `make test-gitops`.

A real API server, the real operator and ledger; no node, so `Hand` plays planners and senders by the real ledger
protocol. Whether somebody got two mails is read from the ledger's deliveries, of which each mail is one.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
import yaml

from custom_resources import CRDS, EXAMPLES, campaign, put, relay
from gitops.lab import NAMESPACE, Lab
from operator_hand import Hand, OperatorProcess, fresh_ledger
from services import wait_for
from sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kube import ControlPlane
    from services import PostgresServer, RedisServer

PEOPLE, PLACE, APP = 50, "marketing", "mail"
ANNOTATION = "argocd.argoproj.io"


@dataclass
class World:
    """Git, Argo CD, and a hand in the namespace of the campaigns."""

    lab: Lab
    hand: Hand
    repo: Path
    sink: Sink

    # --- Git -------------------------------------------------------------------------------------------
    def git(self, *words: str) -> None:
        person = ("-c", "user.name=lab", "-c", "user.email=lab@example.com")
        subprocess.run(["git", "-C", str(self.repo), *person, *words], check=True, capture_output=True)

    def commit(self, **manifests: dict[str, Any] | None) -> None:
        """Write (or with None remove) files of the application, commit, and have Argo CD look."""
        for name, manifest in manifests.items():
            file = self.repo / "mail" / f"{name}.yaml"
            if manifest is None:
                file.unlink()
            else:
                file.write_text(yaml.safe_dump(manifest))
        self.git("add", "-A")
        self.git("commit", "-qm", "change")
        with contextlib.suppress(Exception):  # there is no application yet
            refresh = f"{ANNOTATION}/refresh=normal"
            self.lab.plane.kubectl("-n", NAMESPACE, "annotate", "application", APP, refresh, "--overwrite")

    # --- Argo CD ---------------------------------------------------------------------------------------
    def application(self) -> None:
        """Make the application."""
        policy = {"automated": {"prune": True, "selfHeal": True}, "retry": {"limit": 5, "refresh": True}}
        manifest = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Application",
            "metadata": {
                "name": APP,
                "namespace": NAMESPACE,
                "finalizers": ["resources-finalizer.argocd.argoproj.io/foreground"],
            },
            "spec": {
                "project": "default",
                "source": {"repoURL": f"file://{self.repo}", "path": "mail", "targetRevision": "main"},
                "destination": {"server": "https://kubernetes.default.svc", "namespace": PLACE},
                "syncPolicy": policy,
            },
        }
        self.lab.plane.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    @property
    def app(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.lab.plane.kubectl("-n", NAMESPACE, "get", "application", APP, "-o", "json")
        )
        return found.get("status") or {}

    def is_in(self, sync: str, health: str) -> Callable[[], bool]:
        def probe() -> bool:
            app = self.app
            now = (app.get("sync", {}).get("status"), app.get("health", {}).get("status"))
            return now == (sync, health)

        return probe

    def until(self, sync: str, health: str, seconds: float = 90) -> None:
        try:
            wait_for(f"the application is {sync}, {health}", self.is_in(sync, health), seconds=seconds, interval=0.5)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {json.dumps(self.app)[:3000]}") from None

    def act(self, action: str, name: str) -> None:
        self.lab.cli("app", "actions", "run", APP, action, "--kind", "EmailCampaign", "--resource-name", name)

    # --- campaigns -------------------------------------------------------------------------------------
    def exists(self, name: str) -> bool:
        return self.hand.kubectl("get", "emailcampaign", name, "--ignore-not-found", "-o", "name").strip() != ""

    def until_exists(self, name: str, *, exists: bool = True) -> None:
        wait_for(f"{name} is {'there' if exists else 'gone'}", lambda: self.exists(name) is exists, seconds=90)

    def uid(self, name: str) -> str:
        return str(self.hand.get("emailcampaign", name)["metadata"]["uid"])

    def mails(self) -> int:
        """Mails that were sent, of all campaigns."""
        with contextlib.closing(psycopg2.connect(self.hand.ledger_url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM delivery WHERE outcome = 'sent'")
            (count,) = cursor.fetchone() or (0,)
            return int(count)

    def deliver(self, name: str) -> None:
        """All of a planned campaign, to its end."""
        wait_for("there is a wave", lambda: self.hand.jobs("sender", name), seconds=60)
        self.hand.send_all(name)
        self.hand.wait_for_reason(name, "Complete", "Complete", seconds=60)


def in_wave(manifest: dict[str, Any], wave: int) -> dict[str, Any]:
    return put(manifest, "metadata.annotations", {f"{ANNOTATION}/sync-wave": str(wave)})


@pytest.fixture(scope="module")
def world(
    control_plane: ControlPlane,
    postgres: PostgresServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    control_plane.kubectl("apply", "--server-side", "-f", str(CRDS))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=120s", "-f", str(CRDS))
    control_plane.kubectl("create", "namespace", PLACE)
    folder = tmp_path_factory.mktemp("gitops")
    repo = folder / "repo"
    (repo / "mail").mkdir(parents=True)
    ledger_url = fresh_ledger(postgres.database)
    hand = Hand(control_plane, PLACE, ledger_url, postgres.database())
    hand.people(PEOPLE)
    redis = redis_server.url.partition("//")[2].partition("/")[0]
    with (
        OperatorProcess(control_plane, folder, ledger_url=ledger_url, redis_url=redis_server.url),
        Sink(folder) as sink,
        Lab(control_plane, folder / "argocd", redis) as lab,
    ):
        found = World(lab, hand, repo, sink)
        found.git("init", "-qb", "main")
        yield found


def test_argo_cd_knows_every_field_of_the_examples(world: World) -> None:
    for name in ("application.yaml", "applicationset.yaml"):
        command = ("apply", "--dry-run=server", "--validate=strict", "-f", str(EXAMPLES / "gitops" / name))
        assert "(server dry run)" in world.lab.plane.kubectl(*command)


def test_first_sync_goes_through_its_waves_while_the_first_campaign_still_sends(world: World) -> None:
    here = put(put(relay(), "spec.host", world.sink.host), "spec.port", world.sink.port)
    world.commit(
        relay=in_wave(put(here, "spec.tls.mode", "None"), -1),
        one=in_wave(campaign("one"), 1),
        two=in_wave(campaign("two"), 2),
    )
    world.application()
    assert world.hand.fly("ses") == 0
    world.until_exists("one")
    assert not world.exists("two"), "until the first is planned"
    world.hand.plan("one")
    world.until_exists("two")
    assert world.mails() == 0
    world.hand.plan("two")
    world.until("Synced", "Healthy")
    assert world.app["operationState"]["phase"] == "Succeeded"
    assert world.hand.condition("one", "Complete")["status"] == "False"


def test_pause_by_an_action_outlives_self_heal(world: World) -> None:
    world.act("suspend", "one")
    world.hand.wait_for_reason("one", "Suspended", "BySpec")
    world.until("Synced", "Suspended")
    # Another drift is healed meanwhile: self-heal is at work, and leaves the pause alone.
    world.hand.patch("one", {"weight": 7, "ttlSecondsAfterFinished": 99})
    world.commit(one=put(in_wave(campaign("one"), 1), "spec.weight", 50))
    healed = lambda: world.hand.get("emailcampaign", "one")["spec"]["weight"] == 50  # noqa: E731
    wait_for("the drift is undone", healed, seconds=90)
    assert world.hand.get("emailcampaign", "one")["spec"]["suspend"] is True
    world.act("resume", "one")
    world.until("Synced", "Healthy")


def test_everybody_gets_one_mail(world: World) -> None:
    for name in ("one", "two"):
        world.deliver(name)
    assert world.mails() == 2 * PEOPLE
    world.until("Synced", "Healthy")


def test_pruned_and_restored_sends_nothing(world: World) -> None:
    before = world.uid("two")
    world.commit(two=None)
    world.until_exists("two", exists=False)
    world.commit(two=in_wave(campaign("two"), 2))
    world.until_exists("two")
    world.hand.wait_for_reason("two", "Complete", "Complete")
    assert world.uid("two") != before
    assert world.mails() == 2 * PEOPLE
    assert world.hand.jobs("sender", "two") == []


def test_replace_with_force_sends_nothing(world: World) -> None:
    before = world.uid("two")
    replaced = put(campaign("two"), "metadata.annotations", {f"{ANNOTATION}/sync-options": "Replace=true,Force=true"})
    world.commit(two=put(replaced, "spec.weight", 60))
    wait_for("it is another object", lambda: world.exists("two") and world.uid("two") != before, seconds=90)
    world.hand.wait_for_reason("two", "Complete", "Complete")
    assert world.mails() == 2 * PEOPLE
    assert world.hand.jobs("sender", "two") == []


def test_application_deleted_and_made_anew_sends_nothing(world: World) -> None:
    before = world.uid("one")
    world.lab.plane.kubectl("-n", NAMESPACE, "delete", "application", APP, "--timeout=50s")
    assert not world.exists("one")
    world.application()
    world.until_exists("one")
    assert world.uid("one") != before
    for name in ("one", "two"):
        world.hand.wait_for_reason(name, "Complete", "Complete")
    world.until("Synced", "Healthy")
    assert world.mails() == 2 * PEOPLE
    assert world.hand.jobs("sender") == []


def test_a_refused_change_is_seen_and_mended_by_the_next_commit(world: World) -> None:
    world.commit(one=put(in_wave(campaign("one"), 1), "spec.message.subject", "Another"))

    def refused() -> bool:
        return world.app["sync"]["status"] == "OutOfSync" and "runId" in json.dumps(world.app.get("operationState", {}))

    wait_for("the refusal and its remedy are seen", refused, seconds=90)
    world.commit(one=in_wave(campaign("one"), 1))
    world.until("Synced", "Healthy", seconds=180)
    assert world.mails() == 2 * PEOPLE
