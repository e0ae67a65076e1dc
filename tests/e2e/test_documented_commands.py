"""A reader's way: installed as the chart's README says, README's campaign, and what the other pages tell to type.

Every command of a block is run as it is written, in the order of the pages. What a page presupposes is made before it:
the databases, the relay, the desk. tests/reference/running.py says what stands for the reader's own addresses.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

from custom_resources import ROOT
from e2e.house import query
from mailfleet_cluster import places
from mailfleet_demo import installation
from mailfleet_demo.kubectl import Kubectl, helm
from reference import commands, running
from reference.running import Needs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from e2e.house import House
    from kube import Cluster

SYSTEM, MARKETING = "mailfleet-system", "marketing"
DESK = "mailfleet-desk"
ROWS = 40


def owned_by(house: House, namespace: str) -> None:
    """Let a release of this namespace have the definitions that another one kept."""
    definitions = [f"crd/{kind}.mailfleet.dev" for kind in ("emailcampaigns", "emailrelays")]
    house.kubectl("annotate", "--overwrite", *definitions, f"meta.helm.sh/release-namespace={namespace}")


@pytest.fixture
def free(mailfleet: House) -> Iterator[House]:
    """The house without its operator, as a cluster in which nobody installed Mailfleet; afterwards as it was."""
    installation.upgrade("mailfleet", "--set=crds.keep=true")
    helm("uninstall", "mailfleet", "--namespace", installation.NAMESPACE, "--wait", "--timeout", "180s")
    owned_by(mailfleet, SYSTEM)
    yield mailfleet
    Kubectl(MARKETING)("delete", "emailcampaigns,emailrelays", "--all", "--ignore-not-found", "--timeout=60s")
    helm("uninstall", "mailfleet", "--namespace", SYSTEM, "--ignore-not-found", "--wait", "--timeout", "180s")
    names = ("namespace", MARKETING, SYSTEM)
    mailfleet.kubectl("delete", *names, "--ignore-not-found", "--timeout=240s", seconds=250)
    query(mailfleet.shop_url, "DROP TABLE IF EXISTS subscribers")
    owned_by(mailfleet, installation.NAMESPACE)
    installation.upgrade("mailfleet")


class Reader:
    """Who reads the pages and types what they say."""

    def __init__(self, house: House, cluster: Cluster, folder: Path) -> None:
        self.house, self.cluster = house, cluster
        self.kubectl = Kubectl(MARKETING)
        self.folder = folder / "desk"
        self.folder.mkdir()
        running.desk(self.folder)
        own = folder / "kubeconfig"
        own.write_bytes(cluster.kubeconfig.read_bytes())
        # What they type in the desk is typed through kubectl.
        programs = folder / "bin"
        programs.mkdir()
        program = programs / "mailfleet-sender"
        program.write_text(f'#!/bin/sh\nexec kubectl exec -n {MARKETING} {DESK} -- mailfleet-sender "$@"\n')
        program.chmod(0o755)
        self.variables = {
            "KUBECONFIG": str(own),
            "PATH": f"{programs}:{cluster.tools}:/usr/bin:/bin",
            "STATE": str(places.state()),
            "LEDGER_URL": house.sender_secret["ledger-url"],
            "REDIS_URL": house.sender_secret["redis-url"],
        }

    def reads(self, page: str) -> dict[str, str]:
        """Type the commands of a page; what each wrote, by its first words."""
        said = {}
        for command, shown in running.whole():
            if command.page == page and running.needs(command) is Needs.NODE:
                text = running.run(command, self.folder, self.variables)
                said[running.written(command)] = text
                if shown:
                    assert text.splitlines()[0].split() == shown[0].split(), f"{command}: other columns are shown"
        assert said, f"{page} has no command"
        return said

    # --- what pages presuppose -----------------------------------------------------------------------
    def nothing(self) -> None:
        """What is there without any doing."""

    def a_shop_and_a_relay(self) -> None:
        """README: the table, its Secret, the relay `ses`, and the campaign above in a file."""
        query(self.house.shop_url, "CREATE TABLE subscribers (id bigint PRIMARY KEY, email text, first_name text)")
        query(
            self.house.shop_url,
            "INSERT INTO subscribers SELECT g, 'user' || g || '@docs.example', 'Zoë' FROM generate_series(1, %s) g",
            ROWS,
        )
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop-db"}}
        relay = yaml.safe_load((ROOT / "examples/relay.yaml").read_text(encoding="utf-8"))
        relay["metadata"]["name"] = "ses"
        self.kubectl.apply(secret | {"stringData": {"url": self.house.shop_inside}}, relay)
        ((_, campaign),) = commands.blocks((ROOT / "README.md").read_text(encoding="utf-8"), "yaml")
        (self.folder / "campaign.yaml").write_text(campaign)

    def a_desk(self) -> None:
        """docs/messages.md: the pod of examples/desk.yaml, with the image of `make images`."""
        text = (ROOT / "examples/desk.yaml").read_text(encoding="utf-8")
        self.kubectl.apply(yaml.safe_load(text.replace("mailfleet/sender:0.1.0", self.cluster.images["sender"])))
        self.kubectl("wait", f"pod/{DESK}", "--for=condition=Ready", "--timeout=120s", seconds=130)


def test_what_the_pages_tell_to_type_does_what_they_say(free: House, cluster: Cluster, tmp_path: Path) -> None:
    reader = Reader(free, cluster, tmp_path)
    before: dict[str, Callable[[], None]] = {
        "README.md": reader.a_shop_and_a_relay,
        "docs/messages.md": reader.a_desk,
    }
    said: dict[str, str] = {}
    for page in running.NODE_PAGES:
        if page == "docs/local-cluster.md":
            break  # its last command installs Mailfleet where the tests have it
        before.get(page, reader.nothing)()
        said |= reader.reads(page)

    # README
    columns = said["kubectl get emailcampaigns"].splitlines()[0].lower().split()
    assert {"phase", "progress", "sent", "failed", "rate", "eta"} <= {*columns}
    assert "condition met" in said["kubectl wait --for=condition=Complete emailcampaign/autumn-news --timeout=1h"]
    arrived = sorted(entry["recipient"] for entry in free.oracle.accepted("docs.example"))
    assert arrived == sorted(f"user{n}@docs.example" for n in range(1, ROWS + 1))
    assert reader.kubectl.json("get", "emailcampaign", "autumn-news")["spec"]["suspend"] is True
    # docs/messages.md
    assert "user7@docs.example" in (reader.folder / "mail.eml").read_text()
    assert (reader.folder / "mails.mbox").read_text().count("\nFrom: Example Shop") == 20
    assert free.oracle.newest("me@example.com")
    # docs/troubleshooting.md
    described = said["kubectl describe emailcampaign autumn-news"]
    assert {"Conditions:", "Events:"} <= {line.strip() for line in described.splitlines()}
    assert {"job.batch/", "pod/"} <= {line.partition("/")[0] + "/" for line in described_objects(said)}
    assert "Succeeded" in said["helm test mailfleet -n mailfleet-system"]


def described_objects(said: dict[str, str]) -> list[str]:
    """The lines of what works for the campaign."""
    return said["kubectl get jobs,pods -l mailfleet.dev/campaign=autumn-news"].splitlines()


def test_the_page_of_the_local_cluster_leads_to_an_installation(
    mailfleet: House, cluster: Cluster, tmp_path: Path
) -> None:
    reader = Reader(mailfleet, cluster, tmp_path)
    said = reader.reads("docs/local-cluster.md")
    assert " Ready " in said["kubectl get nodes"]
    released = json.loads(helm("list", "--namespace", installation.NAMESPACE, "--output", "json"))
    assert {release["name"]: release["status"] for release in released}["mailfleet"] == "deployed"
