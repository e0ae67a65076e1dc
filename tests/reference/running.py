"""Where the commands of README and docs are run, what stands for the reader's own names, and which are run by nobody.

Each command of a block is run by one test: what needs the checkout alone by tests/unit, what needs an API server by
tests/api, all else in the order of the pages by tests/e2e (test_documented_commands.py in each).
"""

from __future__ import annotations

import os
import subprocess
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

from custom_resources import ROOT
from reference import commands
from services import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from reference.commands import Command


class Needs(StrEnum):
    """What a command needs."""

    CHECKOUT = "the checkout"
    API = "an API server"
    NODE = "an installation on a node"
    FOREIGN = "something that no test has"


NODE_PAGES = (
    "charts/mailfleet/README.md",
    "README.md",
    "docs/relays.md",
    "docs/messages.md",
    "docs/troubleshooting.md",
    "docs/local-cluster.md",
)
"""In the order in which a person meets them."""
API_PAGES = ("docs/canary.md", "docs/gitops.md")
REGISTRY, KEY, ARGO_CD = (
    "pushes to or pulls from a registry",
    "takes a signing key",
    "takes an Argo CD that one is logged in to",
)
FOREIGN = {
    "docker buildx build --push --platform linux/amd64,linux/arm64 --target operator --provenance=true --sbom=true"
    " -t $REGISTRY/mailfleet/operator:$VERSION -f deploy/Dockerfile .": REGISTRY,
    "docker buildx build --push --platform linux/amd64,linux/arm64 --target sender --provenance=true --sbom=true"
    " -t $REGISTRY/mailfleet/sender:$VERSION -f deploy/Dockerfile .": REGISTRY,
    "cosign sign $REGISTRY/mailfleet/operator@$OPERATOR_DIGEST": KEY,
    "cosign sign $REGISTRY/mailfleet/sender@$SENDER_DIGEST": KEY,
    "helm package charts/mailfleet --sign --key 'releases@example.com' --keyring ~/.gnupg/secring.gpg": KEY,
    "helm push mailfleet-$VERSION.tgz oci://$REGISTRY/charts": REGISTRY,
    "cosign sign $REGISTRY/charts/mailfleet@$CHART_DIGEST": KEY,
    "helm pull oci://$REGISTRY/charts/mailfleet --version $VERSION --verify --keyring releases.gpg": REGISTRY,
    "cosign verify $REGISTRY/mailfleet/sender@$SENDER_DIGEST --certificate-identity-regexp ..."
    " --certificate-oidc-issuer ...": REGISTRY,
    "argocd app actions run campaigns suspend --kind EmailCampaign --resource-name autumn-news": ARGO_CD,
}  # fmt: skip
"""Commands that are judged and not run, each with the reason. (The actions themselves run on Argo CD's own engine in
tests/api/test_argocd_engine.py.)"""
SHOP = "postgresql://mailfleet:PASSWORD@postgres.example.com:5432/mailfleet"
STANDS_FOR = {
    f"'{SHOP}?sslmode=verify-full&sslrootcert=/etc/ssl/certs/ca-certificates.crt'": '"$LEDGER_URL"',
    "'rediss://:PASSWORD@redis.example.com:6379/0'": '"$REDIS_URL"',
    # The released images are in no registry that a test may reach: those of `make images` in their place.
    "helm install mailfleet charts/mailfleet": 'helm install mailfleet charts/mailfleet --values "$STATE/images.json"',
    "/var/lib/mailfleet-cluster": "$STATE",
    "images.json ...": "images.json --values deploy/demo/values.yaml --namespace mailfleet-demo --wait",
}
"""What the pages write for the reader's own things, and what the tests have for it. Variables: see `run`."""


def written(command: Command) -> str:
    """The command without its comment, as FOREIGN has it."""
    return " ".join(command.text.partition(" #")[0].split())


@cache
def whole() -> tuple[tuple[Command, tuple[str, ...]], ...]:
    """Each command of a block with the output that its page shows below it."""
    found = []
    for file in commands.pages():
        page, text = str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")
        lines = text.splitlines()
        for command in commands.of(page, text):
            if command.whole:
                shown = (
                    lines[command.line : lines.index("```", command.line)] if lines[command.line - 1][0] == "$" else []
                )
                found.append((command, tuple(shown)))
    return tuple(found)


def needs(command: Command) -> Needs:
    """What it needs to be run.

    Raises:
        LookupError: nobody has said it.
    """
    if written(command) in FOREIGN:
        return Needs.FOREIGN
    if command.text.split()[0] in {"make", ".venv/bin/pre-commit"}:
        return Needs.CHECKOUT
    if command.page in API_PAGES:
        return Needs.API
    if command.page in NODE_PAGES:
        return Needs.NODE
    raise LookupError(f"{command}: no test runs it; say in tests/reference/running.py what it needs")


def run(command: Command, folder: Path, variables: Mapping[str, str], *, seconds: float = 180) -> str:
    """Run it in a shell, with what stands for the reader's own things.

    Args:
        folder: where a person would be: see `desk`.
        variables: of the environment; those that STANDS_FOR names are LEDGER_URL, REDIS_URL and STATE.

    Returns:
        what it wrote to standard output.
    """
    text = command.text
    for theirs, ours in STANDS_FOR.items():
        text = text.replace(theirs, ours)
    done = subprocess.run(
        ["bash", "-euc", text],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds * PATIENCE,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
    return done.stdout


def desk(folder: Path) -> Path:
    """A folder in which the checkout's files are found and what commands write does no harm."""
    for path in ROOT.iterdir():
        if not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    return folder
