"""The API server's audit log: what the service accounts of pods asked for, and what was answered.

Tests compare it with the rights that were granted. https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "audit"
_FILE_MEGABYTES, _OLD_FILES = 200, 10
"""Some hours of end-to-end tests before the oldest goes; a request takes 1 KB."""

POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    # A watch is told when it begins, as well as when it has ended.
    "omitStages": ["RequestReceived"],
    "rules": [
        # The controllers' accounts: most of the traffic, and none of it ours.
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        # Who, what, and the answer's code; no bodies.
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


def write_policy(folder: Path) -> Path:
    """Write the policy of the cluster in `folder`."""
    (folder / FOLDER).mkdir(mode=0o700, exist_ok=True)
    path = _policy(folder)
    path.write_text(_text(), encoding="utf-8")
    return path


def is_kept(folder: Path) -> bool:
    """Whether the cluster in `folder` was started with this policy."""
    path = _policy(folder)
    return path.exists() and path.read_text(encoding="utf-8") == _text()


def arguments(folder: Path) -> list[str]:
    """Arguments of kube-apiserver. It writes before it answers: whoever has an answer finds it in the log."""
    return [
        *("--audit-policy-file", str(write_policy(folder)), "--audit-log-path", str(folder / FOLDER / "requests.log")),
        *("--audit-log-maxsize", str(_FILE_MEGABYTES), "--audit-log-maxbackup", str(_OLD_FILES)),
    ]


def files(folder: Path) -> list[Path]:
    """The log, a JSON object a line, the oldest file first."""
    return sorted((folder / FOLDER).glob("requests*.log"), key=lambda p: p.stat().st_mtime)


def _policy(folder: Path) -> Path:
    return folder / FOLDER / "policy.json"


def _text() -> str:
    return json.dumps(POLICY, indent=1) + "\n"
