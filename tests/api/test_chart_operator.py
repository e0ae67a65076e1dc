"""The operator as the chart runs it: with its variables and its rights alone, on a real API server.

No pod ever runs here, so a campaign gets as far as its plan Job; the end-to-end tests go on from there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from custom_resources import CHARTS, campaign, relay
from kube import ControlPlane
from mailfleet_cluster.binaries import HELM_CLIENT
from mailfleet_sender.ledger import migrate
from services import free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from services import PostgresServer, RedisServer

RELEASES = {
    ("mailfleet-system", "shop"): (),
    ("listed-system", "listed-shop"): ("--set=clusterWide=false", "--set=crds.enabled=false"),
}
"""The namespaces of the operator and of the campaigns: one that serves all of the cluster, one a listed namespace."""
NO_PODS = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "no-pods"},
    "spec": {"hard": {"pods": "0"}},
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane on which Helm has installed the chart, twice."""
    with ControlPlane(tmp_path_factory.mktemp("installed")) as plane:
        environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig)}
        for (system, shop), more in RELEASES.items():
            for name in (system, shop):
                plane.kubectl("create", "namespace", name)
            urls = ("--set=ledger.url=postgresql://db/x", "--set=redis.url=redis://r/0")
            values = (f"--namespace={system}", *urls, f"--set=campaignNamespaces={{{shop}}}", *more)
            command = [HELM_CLIENT.built(), "install", "mailfleet", str(CHARTS["mailfleet"]), *values]
            subprocess.run(command, env=environment, check=True, capture_output=True, timeout=480)
        plane.kubectl("wait", "--for=condition=Established", "--timeout=120s", "crd", "--all")
        yield plane


def kubeconfig(plane: ControlPlane, folder: Path, system: str) -> Path:
    """A kubeconfig that holds the token of the operator's service account, and no other right."""
    config = yaml.safe_load(plane.kubeconfig.read_text())
    token = plane.kubectl("create", "token", "mailfleet-operator", f"--namespace={system}").strip()
    config["users"] = [{"name": config["contexts"][0]["context"]["user"], "user": {"token": token}}]
    file = folder / "operator.kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


class Operator:
    """The operator's process."""

    def __init__(self, plane: ControlPlane, folder: Path, system: str, ledger_url: str, redis_url: str) -> None:
        found = json.loads(
            plane.kubectl("get", "deployment", "mailfleet-operator", f"--namespace={system}", "-o", "json")
        )
        (container,) = found["spec"]["template"]["spec"]["containers"]
        # Variables as the chart writes them, but for what the Secret holds.
        told = {env["name"]: env["value"] for env in container["env"] if "value" in env}
        secret = {"MAILFLEET_LEDGER_URL": ledger_url, "MAILFLEET_REDIS_URL": redis_url}
        assert {env["name"] for env in container["env"]} == {*told, *secret}
        self.port, self._log = free_port(), folder / "operator.log"
        self._probe = container["livenessProbe"]["httpGet"]["path"]
        local = {
            "KUBECONFIG": str(kubeconfig(plane, folder, system)),
            "MAILFLEET_HEALTH_PORT": str(self.port),
            "PATH": os.environ["PATH"],
        }
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mailfleet_operator"], env={**told, **secret, **local}, stdout=log, stderr=log
            )

    def log(self) -> str:
        return self._log.read_text()

    def healthy(self) -> bool:
        """What the kubelet's liveness probe finds."""
        assert self._process.poll() is None, self.log()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self._probe}", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)


@pytest.fixture(params=RELEASES, ids=lambda names: names[0])
def where(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The namespaces of one of the releases."""
    names: tuple[str, str] = request.param
    return names


@pytest.fixture
def operator(
    installed: ControlPlane,
    where: tuple[str, str],
    tmp_path: Path,
    postgres: PostgresServer,
    redis_server: RedisServer,
) -> Iterator[Operator]:
    ledger_url = postgres.database()
    migrate(ledger_url)
    running = Operator(installed, tmp_path, where[0], ledger_url, redis_server.url)
    yield running
    running.stop()


def test_operator_plans_a_campaign_with_no_more_rights_than_the_chart_gives(
    installed: ControlPlane, where: tuple[str, str], operator: Operator
) -> None:
    _, shop = where

    def get(kind: str, *names: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(installed.kubectl("get", kind, *names, f"--namespace={shop}", "-o", "json"))
        return found

    def planning() -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = get("jobs")["items"]
        return jobs

    wait_for("the liveness probe succeeds", operator.healthy, seconds=30)
    for manifest in (NO_PODS, relay(), campaign()):
        installed.kubectl("create", f"--namespace={shop}", "-f", "-", stdin=json.dumps(manifest))
    wait_for("the plan Job is made", planning, seconds=60)
    wait_for(
        "the campaign's status is written",
        lambda: get("ec", "autumn-news").get("status", {}).get("conditions"),
        seconds=60,
    )
    wait_for("the relay's status is written", lambda: get("er", "ses").get("status", {}).get("conditions"), seconds=60)
    # Events are read (the Job controller's FailedCreate) and written.
    wait_for(
        "the operator tells that pods are rejected", lambda: "mailfleet-operator" in str(get("events")), seconds=60
    )
    (container,) = planning()[0]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "mailfleet/sender:0.1.0"
    assert container["imagePullPolicy"] == "IfNotPresent"
    secrets = {
        env["valueFrom"]["secretKeyRef"]["name"]
        for env in container["env"]
        if "secretKeyRef" in env.get("valueFrom", {})
    }
    assert secrets == {"mailfleet", "shop-db"}
    assert get("secret", "mailfleet")["data"].keys() >= {"ledger-url"}
    # Deleting, too: the operator removes Jobs of a namespace that is being deleted.
    installed.kubectl("delete", "namespace", shop, "--wait=false")
    wait_for("the Jobs of the namespace that is being deleted are gone", lambda: not planning(), seconds=60)
    assert operator.healthy()
    assert "forbidden" not in operator.log().lower()
