"""The ways in which Mailfleet is installed, changed and taken away, each in the middle of a campaign."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from certificates import Certificates
from e2e.house import query
from e2e.next_minor import NextMinor
from mailfleet_cluster import places
from mailfleet_demo import installation
from mailfleet_demo.installation import NAMESPACE, OPERATOR
from mailfleet_demo.kubectl import Kubectl, helm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from e2e.house import House
    from e2e.stage import Stage

INSTALL = Path(__file__).parents[2] / "deploy/install.yaml"
SYSTEM = "mailfleet-system"


@pytest.fixture
def as_before(mailfleet: House) -> Iterator[None]:
    """Afterwards the house has its release again, and nothing of install.yaml but the definitions is left."""
    yield
    mailfleet.kubectl("delete", "namespace", SYSTEM, "--ignore-not-found", "--timeout=240s", seconds=250)
    for kind in ("clusterrolebinding", "clusterrole"):
        found = mailfleet.kubectl("get", kind, "-o", "name").split()
        for name in found:
            if name.partition("/")[2].startswith(f"{SYSTEM}-"):
                mailfleet.kubectl("delete", name)
    installation.upgrade("mailfleet")


@pytest.fixture
def next_minor(mailfleet: House, as_before: None) -> Iterator[NextMinor]:
    """The next minor version; afterwards the ledger has this version's shape again."""
    shape = revision(mailfleet)
    yield NextMinor(shape)
    for statement in ("DROP TABLE IF EXISTS next_sender", "ALTER TABLE run DROP IF EXISTS next_note"):
        query(mailfleet.ledger_url, statement)
    query(mailfleet.ledger_url, "UPDATE alembic_version SET version_num = %s", shape)


def revision(house: House) -> str:
    """The ledger's."""
    ((found,),) = query(house.ledger_url, "SELECT version_num FROM alembic_version")
    return str(found)


def images_of(stage: Stage) -> set[str]:
    """The images of a campaign's senders."""
    return {pod["spec"]["containers"][0]["image"] for pod in stage.pods()}


def test_upgrade_to_the_next_minor_and_roll_back_in_the_middle_lose_and_double_nothing(
    make_stage: Callable[..., Stage], mailfleet: House, next_minor: NextMinor, tmp_path: Path
) -> None:
    """Two campaigns: one begun before the upgrade, with senders of this version throughout; one begun after it, with
    those of the next one, which use what its migration added. Both are in the middle when it is rolled back."""
    assert "Succeeded" in helm("test", "mailfleet", "--namespace", NAMESPACE, "--timeout", "240s")
    next_minor.bring()
    first, second = make_stage("helm-upgrade", rate="20/s"), make_stage("helm-next", rate="20/s")
    for stage in (first, second):
        stage.fill(3_000)
        stage.apply_relay()
    first.apply()
    first.until_accepted(100)
    ours = images_of(first)
    operator = mailfleet.operator_pod()["metadata"]["uid"]
    authority = Certificates.make(tmp_path).ca
    more = ("--set=ledger.retentionMonths=6", f"--set-file=caCertificates={authority}")
    installation.upgrade("mailfleet", "--values", str(next_minor.values), *more)
    upgraded = mailfleet.operator_pod()
    trusted = mailfleet.kubectl("exec", upgraded["metadata"]["name"], "--", "cat", "/etc/mailfleet/trust/ca.crt")
    assert trusted == authority.read_text()
    assert upgraded["metadata"]["uid"] != operator
    assert upgraded["spec"]["containers"][0]["image"] == next_minor.names["operator"]
    assert revision(mailfleet) == next_minor.revision
    second.apply()
    second.until_accepted(50)
    assert images_of(second) == {next_minor.names["sender"]}
    assert images_of(first) == ours, "senders at work are left alone"
    assert query(mailfleet.ledger_url, "SELECT count(*) > 0 FROM next_sender") == [(True,)], "it uses what it added"
    first.until_accepted(len(first.accepted()) + 50)

    helm("rollback", "mailfleet", "--namespace", NAMESPACE, "--wait", "--timeout", "180s")
    assert mailfleet.operator_pod()["spec"]["containers"][0]["image"] != next_minor.names["operator"]
    assert revision(mailfleet) == next_minor.revision, "the ledger keeps its newer shape"
    for stage in (first, second):
        assert not stage.holds("Complete"), "too quick: upgrade and roll-back were not in the middle"
        stage.relay["limits"] = {"rate": "200/s"}
        stage.apply_relay()
    for stage in (first, second):
        stage.until_complete(seconds=150)
        stage.balance()
        assert stage.count("uncertain") == 0
    assert "Succeeded" in helm("test", "mailfleet", "--namespace", NAMESPACE, "--timeout", "240s")
    # And a campaign from its beginning, by the older version on the newer shape.
    sends_from_the_beginning(make_stage("helm-back"))


def test_uninstalling_keeps_campaigns_and_an_installation_without_helm_goes_on(
    make_stage: Callable[..., Stage], mailfleet: House, as_before: None
) -> None:
    stage = make_stage("helm-uninstall", rate="40/s")
    stage.fill(3_000)
    stage.apply_relay()
    stage.apply()
    stage.until_accepted(200)
    installation.upgrade("mailfleet", "--set=crds.keep=true")
    helm("uninstall", "mailfleet", "--namespace", NAMESPACE, "--wait", "--timeout", "180s")
    mailfleet.kubectl("wait", "pod", "--selector=app.kubernetes.io/component=operator", "--for=delete", "--timeout=60s")
    assert stage.kubectl.json("get", "emailcampaign", stage.campaign)["spec"]["relayRef"] == {"name": "relay"}
    stage.until_accepted(len(stage.accepted()) + 100)  # senders need no operator

    installation.namespace(SYSTEM)
    system = Kubectl(SYSTEM)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": OPERATOR},
        "stringData": mailfleet.sender_secret,
    }
    system.apply(secret)
    system("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=_with_images(INSTALL.read_text()))
    system("rollout", "status", f"deployment/{OPERATOR}", "--timeout=240s", seconds=250)
    stage.until_complete(seconds=150)
    stage.balance()
    assert stage.count("uncertain") == 0

    sends_from_the_beginning(make_stage("install-yaml"))


def sends_from_the_beginning(stage: Stage) -> None:
    """A small campaign, planned and sent by what is installed now."""
    stage.fill(300)
    stage.apply_relay()
    stage.apply()
    stage.until_complete(seconds=90)
    stage.balance()


def _with_images(text: str) -> str:
    """The file with the images of `make images` in place of the released ones."""
    for target, values in json.loads((places.state() / "images.json").read_text()).items():
        image = values["image"]
        released = f"mailfleet/{target}:0.1.0"
        assert released in text
        text = text.replace(released, f"{image['registry']}/{image['repository']}:{image['tag']}")
    return text
