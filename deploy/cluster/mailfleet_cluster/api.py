"""The little that is asked of the API server before there is a client for it: is it, is the node, ready?"""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Api:
    """The API server as one user sees it.

    Attributes:
        url: https://address:port
        authority: the CA's certificate.
        certificate: of the user, with `key`.
    """

    url: str
    authority: Path
    certificate: Path
    key: Path

    def get(self, path: str) -> str | None:
        """The body of a GET that was answered with 200, else None: not there, not up, or not within 5 s."""
        try:
            trust = ssl.create_default_context(cafile=str(self.authority))
            trust.load_cert_chain(self.certificate, self.key)
            with urllib.request.urlopen(self.url + path, context=trust, timeout=5) as reply:
                return str(reply.read().decode())
        except (OSError, urllib.error.URLError):
            return None

    def ready(self) -> bool:
        """Whether it says so of itself."""
        return self.get("/readyz") == "ok"

    def controllers_ready(self) -> bool:
        """Whether the controllers work: the default namespace has its service account, without which no pod starts."""
        return self.get("/api/v1/namespaces/default/serviceaccounts/default") is not None

    def node_ready(self, name: str) -> bool:
        """Whether this node takes pods."""
        if not (body := self.get(f"/api/v1/nodes/{name}")):
            return False
        node: dict[str, Any] = json.loads(body)
        conditions = node.get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def write_kubeconfig(self, path: Path, *, user: str) -> Path:
        """Write a kubeconfig that holds all it needs, so that it can be copied; JSON, which is YAML too."""

        def data(file: Path) -> str:
            return base64.b64encode(file.read_bytes()).decode()

        cluster = {"server": self.url, "certificate-authority-data": data(self.authority)}
        keys = {"client-certificate-data": data(self.certificate), "client-key-data": data(self.key)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "mailfleet", "cluster": cluster}],
            "users": [{"name": user, "user": keys}],
            "contexts": [{"name": "mailfleet", "context": {"cluster": "mailfleet", "user": user}}],
            "current-context": "mailfleet",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        return path
