"""EmailRelays as the operator leads them, on a real API server: preflights, accounts, what the status says."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

import custom_resources
from certificates import Certificates
from kube import KubectlError
from mailfleet_sender.limiter import Limiter, LimiterAdmin, open_limiter, open_limiter_admin
from operator_hand import Hand, OperatorProcess
from services import wait_for
from sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kube import ControlPlane
    from services import RedisServer

Manifest = dict[str, Any]
PASSWORD, WRONG = "correct horse", "wrong battery"


@pytest.fixture(scope="module")
def operator(
    api: ControlPlane, ledger_url: str, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """One that has an account for all namespaces; neither a traceback nor a password is in its log."""
    folder = tmp_path_factory.mktemp("operator")
    urls = {"ledger_url": ledger_url, "redis_url": redis_server.url}
    with OperatorProcess(api, folder, **urls, MAILFLEET_SHARED_ACCOUNTS="company") as process:
        yield process
        text = process.log.read_text()
        assert "Traceback" not in text, text[-6000:]
        assert WRONG not in text
        assert PASSWORD not in text


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sink]:
    """A relay in the clear."""
    with Sink(tmp_path_factory.mktemp("sink")) as server:
        yield server


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sink]:
    """A relay with STARTTLS that wants a password."""
    folder = tmp_path_factory.mktemp("secure")
    made = Certificates.make(folder)
    tls = (f"--tls-cert={made.chain}", f"--tls-key={made.key}")
    with Sink(folder, *tls, f"--auth=mailer:{PASSWORD}") as server:
        yield server


@pytest.fixture(scope="module")
def limiter(redis_server: RedisServer) -> LimiterAdmin:
    return LimiterAdmin(open_limiter_admin(redis_server.url))


def relay(sink: Sink | None = None, name: str = "ses", rate: str = "14/s", **spec: Any) -> Manifest:
    body = custom_resources.relay(name)
    where = {"host": sink.host, "port": sink.port} if sink else {}
    limits = {"rate": rate, **spec.pop("limits", {})}
    body["spec"] |= {"tls": {"mode": "None"}, **where, **spec, "limits": limits}
    return body


def login(password: str) -> Manifest:
    data = {"username": "mailer", "password": password}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "stringData": data}


def status(hand: Hand, name: str = "ses") -> Manifest:
    found: Manifest = hand.get("emailrelay", name).get("status") or {}
    return found


def condition(hand: Hand, type_: str, name: str = "ses") -> Manifest:
    return next((c for c in status(hand, name).get("conditions") or () if c["type"] == type_), {})


def wait_for_ready(hand: Hand, reason: str, name: str = "ses", seconds: float = 30) -> Manifest:
    def probe() -> Manifest | None:
        found = condition(hand, "Ready", name)
        return found if found.get("reason") == reason else None

    try:
        return wait_for(f"Ready for {reason}", probe, seconds=seconds, interval=0.2)
    except TimeoutError as error:
        raise TimeoutError(f"{error}; status: {json.dumps(status(hand, name))}") from None


def wait_for_rate(limiter: LimiterAdmin, account: str, per_second: float) -> None:
    """Wait until the limiter has it: what senders ask, each second at least, is answered with it from then on."""
    wait_for(
        f"{account} has {per_second}/s", lambda: limiter.state(account).permits_per_second == per_second, seconds=2
    )


def set_rate(hand: Hand, rate: str, name: str = "ses") -> None:
    patch = json.dumps({"spec": {"limits": {"rate": rate}}})
    hand.kubectl("patch", "emailrelay", name, "--type=merge", "-p", patch)


def test_a_relay_is_tried_at_first_sight_and_says_what_it_offers(hand: Hand, sink: Sink) -> None:
    hand.apply(relay(sink))
    said = wait_for_ready(hand, "Preflighting")
    assert said["status"] == "Unknown"
    assert hand.fly("ses") == 0
    said = wait_for_ready(hand, "Ready")
    assert said["status"] == "True"
    assert "takes connections: no encryption, no login" in said["message"]
    assert said["observedGeneration"] == 1
    found = status(hand)
    assert "PIPELINING" in found["capabilities"]
    assert (found["effectiveRate"], found["usedToday"], found["campaigns"]) == ("14/s", 0, 0)
    assert condition(hand, "Throttled")["status"] == "False"
    assert len(json.dumps(found)) < 4096
    hand.kubectl("wait", "--for=condition=Ready", "emailrelay/ses", "--timeout=60s")
    (job,) = hand.preflights("ses")
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("EmailRelay", "ses")
    assert sink.accepted() == []


def test_a_wrong_password_is_told_with_its_remedy_and_mended_it_is_ready(hand: Hand, secure: Sink) -> None:
    tls = {"mode": "StartTLS", "verification": "None"}
    hand.apply(login(WRONG), relay(secure, tls=tls, auth={"secretRef": {"name": "login"}}))
    assert hand.fly("ses") != 0
    said = wait_for_ready(hand, "CredentialsRefused")
    assert said["status"] == "False"
    assert "535" in said["message"]
    assert "auth.secretRef" in said["message"]
    assert WRONG not in json.dumps(hand.get("emailrelay", "ses"))
    assert WRONG not in json.dumps(hand.preflights("ses"))
    hand.apply(login(PASSWORD))
    first = hand.preflights("ses")
    wait_for("it is tried again", lambda: hand.preflights("ses") != first, seconds=30, interval=0.3)
    assert condition(hand, "Ready")["reason"] == "CredentialsRefused"  # until the other says otherwise
    assert hand.fly("ses") == 0
    said = wait_for_ready(hand, "Ready")
    assert "logged in (it offers AUTH PLAIN LOGIN)" in said["message"]
    assert {"STARTTLS", "AUTH"} <= {*status(hand)["capabilities"]}
    assert len(hand.preflights("ses")) == 1


def test_other_settings_are_tried_at_once_and_another_rate_is_not(
    hand: Hand, sink: Sink, limiter: LimiterAdmin
) -> None:
    hand.apply(relay(sink))
    assert hand.fly("ses") == 0
    wait_for_ready(hand, "Ready")
    (before,) = hand.preflights("ses")
    set_rate(hand, "50/s")
    wait_for_rate(limiter, f"{hand.namespace}/ses", 50)
    wait_for("the status says it", lambda: status(hand)["effectiveRate"] == "50/s", interval=0.2)
    assert [j["metadata"]["uid"] for j in hand.preflights("ses")] == [before["metadata"]["uid"]]
    hand.kubectl("patch", "emailrelay", "ses", "--type=merge", "-p", '{"spec": {"helloName": "mail.example.com"}}')
    wait_for_ready(hand, "Preflighting")
    assert hand.fly("ses") == 0
    assert wait_for_ready(hand, "Ready")["observedGeneration"] == 3


def test_a_restarted_operator_tries_nothing_again(hand: Hand, sink: Sink, operator: OperatorProcess) -> None:
    hand.apply(relay(sink))
    assert hand.fly("ses") == 0
    wait_for_ready(hand, "Ready")
    (before,) = hand.preflights("ses")
    operator.kill()
    hand.apply(relay(sink, rate="15/s"))
    operator.start()
    wait_for("it has looked", lambda: status(hand)["observedGeneration"] == 2, interval=0.2)
    assert [j["metadata"]["uid"] for j in hand.preflights("ses")] == [before["metadata"]["uid"]]
    assert condition(hand, "Ready")["status"] == "True"


def test_a_missing_secret_is_named(hand: Hand, secure: Sink) -> None:
    hand.apply(relay(secure, tls={"mode": "StartTLS"}, auth={"secretRef": {"name": "login"}}))
    pod = hand.preflight_pod("ses")["metadata"]["name"]
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "login" not found'}
    hand.pod_status(pod, "Pending", {"waiting": waiting})
    said = wait_for_ready(hand, "CredentialsMissing")
    assert 'secret "login" not found: create it' in said["message"]


def test_one_that_cannot_reach_the_ledger_leaves_its_last_words(hand: Hand, sink: Sink) -> None:
    hand.apply(relay(sink))
    pod = hand.preflight_pod("ses")["metadata"]["name"]
    hand.end_pod(pod, 75, message="the ledger does not answer; check ledger-url in the namespace's sender Secret")
    said = wait_for_ready(hand, "LedgerUnavailable")
    assert said["status"] == "False"
    assert "ledger-url" in said["message"]


def test_a_campaign_says_what_is_wrong_with_its_relay_and_starts_all_the_same(hand: Hand, secure: Sink) -> None:
    tls = {"mode": "StartTLS", "verification": "None"}
    campaign = custom_resources.campaign("autumn")
    campaign["spec"]["suspend"] = True
    hand.people(100)
    hand.apply(login(WRONG), relay(secure, tls=tls, auth={"secretRef": {"name": "login"}}), campaign)
    assert hand.fly("ses") != 0
    assert hand.plan() == 0

    def warned() -> bool:
        said = hand.condition("autumn", "Planned")
        return said["status"] == "True" and "not ready (CredentialsRefused)" in said["message"]

    wait_for("the plan says it", warned, interval=0.2)
    wait_for("it is counted", lambda: status(hand)["campaigns"] == 1, interval=0.2)
    hand.patch("autumn", {"suspend": False})
    wait_for("a send Job", lambda: hand.jobs("sender"), interval=0.2)
    assert condition(hand, "Ready")["status"] == "False"


def test_relays_with_one_account_share_the_lowest_limits(hand: Hand, sink: Sink, limiter: LimiterAdmin) -> None:
    account = f"{hand.namespace}/eu"
    hand.apply(relay(sink, limits={"account": "eu"}))
    wait_for_rate(limiter, account, 14)
    hand.apply(relay(sink, "other", "10/s", limits={"account": "eu"}))
    wait_for_rate(limiter, account, 10)
    for name in ("ses", "other"):
        assert hand.fly(name) == 0
    said = wait_for_ready(hand, "Ready")["message"]
    assert f"account {account} is shared with {hand.namespace}/other" in said
    assert "rate 10/s (here 14/s)" in said
    assert "lowest" not in wait_for_ready(hand, "Ready", "other")["message"]
    assert status(hand)["effectiveRate"] == "10/s"
    set_rate(hand, "12/s", "other")
    wait_for_rate(limiter, account, 12)
    set_rate(hand, "20/s", "other")
    wait_for_rate(limiter, account, 14)
    set_rate(hand, "5/s")
    wait_for_rate(limiter, account, 5)
    hand.kubectl("delete", "emailrelay", "ses")
    wait_for_rate(limiter, account, 20)
    wait_for("alone", lambda: "shared" not in condition(hand, "Ready", "other")["message"], interval=0.2)


def test_only_accounts_that_the_installation_lists_are_shared_between_namespaces(
    hand: Hand, api: ControlPlane, limiter: LimiterAdmin
) -> None:
    away = f"{hand.namespace}-away"
    api.kubectl("create", "namespace", away)
    for account, rate in (("company", "7/s"), ("private", "3/s")):
        body = json.dumps(relay(name=account, rate=rate, limits={"account": account}))
        api.kubectl("-n", away, "apply", "-f", "-", stdin=body)
        hand.apply(relay(name=account, rate="14/s", limits={"account": account}))
    wait_for_rate(limiter, "company", 7)
    wait_for_rate(limiter, f"{hand.namespace}/private", 14)
    wait_for_rate(limiter, f"{away}/private", 3)
    api.kubectl("-n", away, "delete", "emailrelay", "company")
    wait_for_rate(limiter, "company", 14)


def test_a_relay_that_throttles_is_seen(hand: Hand, sink: Sink, redis_server: RedisServer) -> None:
    hand.apply(relay(sink, rate="100/s"))
    wait_for("it is published", lambda: status(hand).get("effectiveRate") == "100/s", interval=0.2)

    async def throttled() -> None:
        client = open_limiter(redis_server.url)

        async def seed() -> None:
            raise AssertionError("the limits are there")

        who = {"account": f"{hand.namespace}/ses", "campaign": f"{hand.namespace}/x", "pod": "x-0"}
        pod = Limiter(client, **who, seed=seed)
        pod.report.throttled = 1
        await pod.leave()
        await client.aclose()

    asyncio.run(throttled())
    set_rate(hand, "200/s")  # looks at once; else within a minute, as nobody sends
    wait_for("Throttled", lambda: condition(hand, "Throttled").get("reason") == "RelayThrottling", interval=0.2)
    assert condition(hand, "Throttled")["status"] == "True"
    wait_for("the rate", lambda: 140 <= float(status(hand)["effectiveRate"].removesuffix("/s")) < 200, interval=0.2)


@pytest.mark.parametrize("account", ["a/b", "", "-a", "a,b", "{a}"])
def test_an_account_that_is_no_name_is_refused(api: ControlPlane, namespace: str, account: str) -> None:
    with pytest.raises(KubectlError, match="account"):
        api.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(relay(limits={"account": account})))


@pytest.mark.parametrize("version", ["1.1", "1.4", "TLS"])
def test_a_version_of_tls_that_is_not_spoken_is_refused(api: ControlPlane, namespace: str, version: str) -> None:
    body = relay(tls={"mode": "StartTLS", "minimumVersion": version})
    with pytest.raises(KubectlError, match=r"1\.2 or 1\.3|minimumVersion"):
        api.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(body))
