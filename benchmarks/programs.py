"""The programs in Go and Node.js that benchmarks use: installed once, outside the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "deploy" / "cluster")]

from mailfleet_cluster.places import cache, content_hash  # noqa: E402


def go_program(folder: Path) -> Path:
    """Build a Go program; only modules that go.sum names."""
    binary = cache() / "bin" / f"bench-{folder.name}-{content_hash([folder])}"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        made = binary.with_suffix(f".{os.getpid()}")
        command = ["go", "build", "-mod=readonly", "-buildvcs=false", "-o", str(made), "."]
        subprocess.run(command, cwd=folder, env={**os.environ, "CGO_ENABLED": "0"}, check=True)
        made.rename(binary)
    return binary


def node_program(folder: Path) -> Path:
    """Install the packages of package.json beside a copy of the program."""
    home = cache() / "bench" / f"node-{content_hash([folder])}"
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        made = home.with_suffix(f".{os.getpid()}")
        shutil.copytree(folder, made)
        command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
        subprocess.run(command, cwd=made, check=True)
        made.rename(home)
    return home / "peer.js"


def versions() -> dict[str, str]:
    """What the peers are made of, as it is pinned; and what runs or builds them."""
    packages = json.loads((HERE / "peers" / "node" / "package.json").read_text(encoding="utf-8"))["dependencies"]
    modules = re.findall(
        r"^\s+(\S+) (v\S+)$", (HERE / "peers" / "go" / "go.mod").read_text(encoding="utf-8"), re.MULTILINE
    )
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    go = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "bullmq": ", ".join([*(f"{name} {version}" for name, version in packages.items()), f"Node {node}"]),
        "go": ", ".join([*(f"{name} {version}" for name, version in modules), go]),
    }
