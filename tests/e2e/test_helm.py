"""The ways in which Mailfleet is installed, changed and taken away, each in the middle of a campaign."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

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


def test_upgrade_and_roll_back_in_the_middle_lose_and_double_nothing(
    make_stage: Callable[..., Stage], mailfleet: House, as_before: None
) -> None:
    assert "Succeeded" in helm("test", "mailfleet", "--namespace", NAMESPACE, "--timeout", "240s")
    stage = make_stage("helm-upgrade", rate="40/s")
    stage.fill(3_000)
    stage.apply_relay()
    stage.apply()
    stage.until_accepted(200)
    first = mailfleet.operator_pod()["metadata"]["uid"]
    installation.upgrade("mailfleet", "--set=operator.podAnnotations.step=upgraded", "--set=ledger.retentionMonths=6")
    second = mailfleet.operator_pod()["metadata"]
    assert second["uid"] != first
    assert second["annotations"]["step"] == "upgraded"
    assert not stage.holds("Complete"), "too quick: the upgrade was not in the middle"
    stage.until_accepted(len(stage.accepted()) + 100)
    helm("rollback", "mailfleet", "--namespace", NAMESPACE, "--wait", "--timeout", "180s")
    assert "step" not in mailfleet.operator_pod()["metadata"]["annotations"]
    stage.until_complete(seconds=150)
    stage.balance()
    assert stage.count("uncertain") == 0


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

    # From its beginning as well.
    other = make_stage("install-yaml")
    other.fill(300)
    other.apply_relay()
    other.apply()
    other.until_complete(seconds=90)
    other.balance()


def _with_images(text: str) -> str:
    """The file with the images of `make images` in place of the released ones."""
    for target, values in json.loads((places.state() / "images.json").read_text()).items():
        image = values["image"]
        released = f"mailfleet/{target}:0.1.0"
        assert released in text
        text = text.replace(released, f"{image['registry']}/{image['repository']}:{image['tag']}")
    return text
