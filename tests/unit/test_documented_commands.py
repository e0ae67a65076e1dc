"""What README and docs tell people to type names targets, files, options, values and fields that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from custom_resources import ROOT
from reference import commands, running
from reference.commands import Command
from reference.running import Needs

PAGES = [(str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")) for file in commands.pages()]
COMMANDS = [command for page, text in PAGES for command in commands.of(page, text)]
BLOCKS = [(f"{page}:{line}", body) for page, text in PAGES for line, body in commands.blocks(text, "yaml")]


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_names_what_exists(command: Command) -> None:
    assert commands.faults(command) == []


@pytest.mark.parametrize(("where", "body"), BLOCKS, ids=[where for where, _ in BLOCKS])
def test_fields_in_yaml_exist(where: str, body: str) -> None:
    assert commands.yaml_faults(body) == []


def test_they_are_found() -> None:
    assert {page for page, _ in PAGES} > {"README.md", "charts/mailfleet/README.md", "docs/canary.md", "docs/relays.md"}
    whole = [command.text for command in COMMANDS if command.whole]
    assert len(whole) > 30
    assert {text.split()[0] for text in whole} > {"make", "kubectl", "helm", "mailfleet-sender"}
    assert len(BLOCKS) > 5


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("make demos", "make has no target demos"),
        ("make test SPEED=9", "make knows no SPEED"),
        ("mailfleet-sender previews a/b", "invalid choice: 'previews'"),
        ("mailfleet-sender preview a/b --keys 7", "unrecognized arguments: --keys"),
        ("mailfleet-sender test a/b --relay ses", "required: --to"),
        ("mailfleet-operator --verbose", "takes no --verbose"),
        ("kubectl get emailcampaign -x", "no option -x"),
        ("kubectl fetch emailcampaigns", "no verb fetch"),
        ("kubectl get emailcampains", "emailcampains is no kind"),
        ("kubectl explain emailcampaign.spec.colour", "no field spec.colour"),
        ("kubectl wait --for=condition=Done emailcampaign/x", "no condition"),
        ("kubectl logs -l mailfleet.dev/campain=x", "label"),
        ("kubectl logs deployment/mailfleet", "no deployment mailfleet"),
        ("kubectl apply -f examples/campain.yaml", "there is no examples/campain.yaml"),
        ("kubectl apply -f exmples/campaign.yaml", "there is no exmples/campaign.yaml"),
        ("kubectl patch emailcampaign x -p '{\"spec\":{}}'", "--type=merge"),
        ("kubectl patch emailcampaign x --type=merge -p '{\"spec\":'", "no JSON"),
        ('kubectl patch emailcampaign x --type=merge -p \'{"spec":{"suspended":true}}\'', "suspended"),
        ('kubectl patch emailcampaign x --type=merge -p \'{"spec":{"suspend":"yes"}}\'', "not of type 'boolean'"),
        ('kubectl patch emailrelay x --type=merge -p \'{"spec":{"weight":3}}\'', "weight"),
        ("helm upgrade mailfleet charts/mailflet", "there is no charts/mailflet"),
        ("helm upgrade mailfleet charts/mailfleet --set ledger.uri=x", "no value ledger.uri"),
        ("helm upgrade mailfleet charts/mailfleet --set ledger.url=x,reddis.url=y", "no value reddis.url"),
        ("helm instal mailfleet", "no verb"),
        ("docker build --target sander -f deploy/Dockerfile .", "no stage sander"),
        ("argocd app actions run campaigns stop --kind EmailCampaign --resource-name x", "no action stop"),
        ("kubectl get nodes && mak demo", "mak is no program"),
        ("mailctl list", "mailctl is no program"),
        ("kubectl get 'nodes", "No closing quotation"),
    ],
)
def test_a_wrong_command_is_seen(text: str, fault: str) -> None:
    (command,) = commands.of("page.md", f"```sh\n{text}\n```\n")
    assert fault in " ".join(commands.faults(command))


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("canary: {step: [{percent: 5}]}", "step"),
        ("retry: {maxAgeSeconds: long}", "not of type 'integer'"),
        ("colour: red", "no resource has colour"),
        ("kind: EmailCampaign\nspec: {relayRef: {name: ses}}", "is a required property"),
    ],
)
def test_a_wrong_field_is_seen(body: str, fault: str) -> None:
    assert fault in " ".join(commands.yaml_faults(body))


def test_what_is_right_is_left_alone() -> None:
    patch = """kubectl patch ec x --type=merge -p '{"spec": {"canary": null, "retry": {"maxAgeSeconds": 60}}}'"""
    for text in (patch, "make demo RECIPIENTS=5 && make demo-down", "kubectl get ec,er -A | make help > out"):
        assert commands.faults(Command("page.md", 1, text)) == []


def test_blocks_lines_and_words_are_told_apart() -> None:
    text = (
        "Say `make lint` or `makeup`.\n```\n$ kubectl get nodes   # all\nNAME  READY\nmake demo\n```\n"
        "```sh\nhelm install x \\\n  --wait\n\nls\n```\n```yaml\nmake: x\n```\n"
    )
    assert [(c.line, " ".join(c.text.split()), c.whole) for c in commands.of("p", text)] == [
        (1, "make lint", False),
        (3, "kubectl get nodes # all", True),
        (5, "make demo", True),
        (8, "helm install x --wait", True),
        (11, "ls", True),
    ]


def test_each_command_of_a_block_is_run_by_a_test_or_said_not_to_be() -> None:
    found = [running.needs(command) for command, _ in running.whole()]
    assert set(found) == set(Needs)


def test_no_command_is_left_out_that_is_not_there() -> None:
    assert running.FOREIGN.keys() <= {running.written(command) for command, _ in running.whole()}
    texts = "\n".join(command.text for command, _ in running.whole())
    assert [theirs for theirs in running.STANDS_FOR if theirs not in texts] == []


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.text.startswith("make ")], ids=str)
def test_make_can_make_it(command: Command) -> None:
    """By a dry run: the targets are run by CI, by the tests that they name, or take many minutes."""
    dry = 'make() { command make --dry-run "$@"; }\n'
    done = subprocess.run(["bash", "-euc", dry + command.text], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_checks_before_each_commit_are_installed(tmp_path: Path) -> None:
    """CONTRIBUTING's command, in a repository of its own."""
    (command,) = [c for c, _ in running.whole() if c.text.startswith(".venv/bin/pre-commit")]
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    (tmp_path / ".pre-commit-config.yaml").write_text((ROOT / ".pre-commit-config.yaml").read_text())
    running.run(command, tmp_path, {})
    assert "pre-commit" in (tmp_path / ".git/hooks/pre-commit").read_text()


def test_make_alone_lists_every_target_that_the_pages_name() -> None:
    told = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = {line.split()[1] for line in told.splitlines() if line.startswith("  make ")}
    named = {word for command in COMMANDS for word in re.findall(r"\bmake ([a-z][a-z0-9-]*)", command.text)}
    assert named - listed == set()
