"""Relays on a real node: a preflight's verdict and its remedy, one account for two relays, a rate changed live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from certificates import Certificates
from e2e.stage import API, RELAY
from mailfleet_demo.progress import condition

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.stage import Stage
    from kube import Cluster

PASSWORD, WRONG = "correct horse", "wrong battery"


def relay_status(stage: Stage, name: str = RELAY) -> dict[str, Any]:
    found: dict[str, Any] = stage.kubectl.json("get", "emailrelay", name).get("status") or {}
    return found


def ready_for(stage: Stage, reason: str, name: str = RELAY) -> bool:
    return bool(condition(relay_status(stage, name), "Ready").get("reason") == reason)


def until_ready(stage: Stage, reason: str = "Ready", name: str = RELAY, *, seconds: float = 90) -> dict[str, Any]:
    """Wait for the reason of Ready; the condition."""
    stage.until(f"{name} is Ready for {reason}", lambda: ready_for(stage, reason, name), seconds=seconds)
    return condition(relay_status(stage, name), "Ready")


def relay_with_a_login(stage: Stage, image: str, folder: Path) -> None:
    """A sink of the stage's own, with STARTTLS by a CA of its own, that wants a password."""
    host = f"login.{stage.namespace}.svc.cluster.local"
    made = Certificates.make(folder, host)
    stage.secret("tls", {"chain.pem": made.chain.read_text(), "key.pem": made.key.read_text()})
    stage.secret("ca", {"ca.crt": made.ca.read_text()})
    arguments = ["--tls-cert=/tls/chain.pem", "--tls-key=/tls/key.pem", f"--auth=mailer:{PASSWORD}"]
    pod = {
        "securityContext": {"runAsNonRoot": True, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {
                "name": "sink",
                "image": image,
                "args": ["--smtp-port=2525", "--control-port=8025", "--log=/log/accepted.jsonl", *arguments],
                "readinessProbe": {"tcpSocket": {"port": 2525}, "periodSeconds": 1},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "tls", "mountPath": "/tls"}, {"name": "log", "mountPath": "/log"}],
            }
        ],
        "volumes": [{"name": "tls", "secret": {"secretName": "tls"}}, {"name": "log", "emptyDir": {}}],
    }
    labels = {"app": "login"}
    ports = {"selector": labels, "ports": [{"port": 2525}]}
    stage.kubectl.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "login", "labels": labels}, "spec": pod},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "login"}, "spec": ports},
    )
    stage.kubectl("wait", "pod/login", "--for=condition=Ready", "--timeout=240s", seconds=250)
    tls = {"mode": "StartTLS", "caSecretRef": {"name": "ca", "key": "ca.crt"}}
    stage.relay |= {"host": host, "port": 2525, "tls": tls, "auth": {"secretRef": {"name": "login"}}}


def test_a_wrong_password_is_named_and_mended_the_relay_is_ready(
    make_stage: Callable[..., Stage], cluster: Cluster, tmp_path: Path
) -> None:
    stage = make_stage("relay-login")
    stage.fill(500)
    relay_with_a_login(stage, cluster.images["sink"], tmp_path)
    stage.apply_relay()
    stage.apply(suspend=True)
    said = until_ready(stage, "CredentialsMissing")
    assert 'secret "login" not found: create it' in said["message"]
    stage.secret("login", {"username": "mailer", "password": WRONG})
    said = until_ready(stage, "CredentialsRefused")
    assert said["status"] == "False"
    assert "535" in said["message"]
    assert "auth.secretRef" in said["message"]
    assert WRONG not in stage.kubectl("get", "emailrelays,jobs,pods,events", "-o", "yaml")
    stage.until(
        "the campaign says it",
        lambda: "not ready (CredentialsRefused)" in stage.condition("Planned").get("message", ""),
        seconds=60,
    )
    stage.secret("login", {"username": "mailer", "password": PASSWORD})
    said = until_ready(stage, seconds=150)
    assert said["status"] == "True"
    assert "TLSv1.3, logged in" in said["message"]
    assert {"PIPELINING", "STARTTLS", "AUTH"} <= {*relay_status(stage)["capabilities"]}
    stage.apply(suspend=False)
    stage.until_complete(seconds=90)
    assert stage.count("sent") == 490
    stage.until("today's use is told", lambda: relay_status(stage).get("usedToday") == 490, seconds=90)


def test_two_relays_with_one_account_share_its_rate(make_stage: Callable[..., Stage]) -> None:
    limits = {"account": "provider"}
    stage = make_stage("one-account", relay={"limits": {**limits, "rate": "200/s"}})
    stage.fill(1_500)
    stage.apply_relay()
    slower = {**stage.relay, "limits": {**limits, "rate": "60/s"}}
    stage.kubectl.apply({"apiVersion": API, "kind": "EmailRelay", "metadata": {"name": "slower"}, "spec": slower})
    said = until_ready(stage)["message"]
    assert f"is shared with {stage.namespace}/slower" in said
    assert "rate 60/s (here 200/s)" in said
    until_ready(stage, name="slower")
    stage.apply()
    other = {**stage.spec, "relayRef": {"name": "slower"}}
    stage.kubectl.apply({"apiVersion": API, "kind": "EmailCampaign", "metadata": {"name": "more"}, "spec": other})
    where = (stage.namespace, "more")

    def more() -> dict[str, Any]:
        found: dict[str, Any] = stage.board.campaign(*where).get("status") or {}
        return found

    stage.until("both send", lambda: stage.count("sent") and more().get("recipients", {}).get("sent"), seconds=90)
    assert relay_status(stage)["effectiveRate"] == relay_status(stage, "slower")["effectiveRate"] == "60/s"
    stage.until_complete(seconds=150)
    stage.until("the other one as well", lambda: condition(more(), "Complete").get("status") == "True", seconds=150)
    assert stage.arrived().total() == 2 * 1_470
    assert stage.peak() <= 60 * 1.05 + 6 + 2  # the burst, and one for each sender


def test_a_rate_is_changed_while_it_is_sent_at(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage("live-rate", rate="20/s")
    stage.fill(4_000)
    stage.apply_relay()
    stage.apply()
    stage.until_accepted(60)
    assert stage.peak() <= 20 * 1.05 + 2
    stage.relay["limits"] = {"rate": "1000/s"}
    stage.apply_relay()
    stage.until("the relay says it", lambda: relay_status(stage).get("effectiveRate") == "1000/s", seconds=20)
    assert relay_status(stage)["campaigns"] == 1
    stage.until_complete(seconds=120)
    stage.balance()
    assert stage.peak() <= 1_000 * 1.2, "what a pause of the machine held up comes within the next second"
    stage.until("it is used no more", lambda: relay_status(stage).get("campaigns") == 0, seconds=90)
