"""etcd, the API server and the controllers: their keys, their kubeconfigs and their command lines.

The same for the local cluster, where they run in its network namespace, and for the API tests, where they
run alone on loopback as any user.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mailfleet_cluster import audit
from mailfleet_cluster.api import Api
from mailfleet_cluster.keys import Authority
from mailfleet_cluster.network import Network

if TYPE_CHECKING:
    from pathlib import Path

_NAMES = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a control plane runs.

    Attributes:
        folder: everything it writes goes below it.
        address: of the API server.
        ports: of the API server, of etcd for clients, of etcd for peers.
        loopback: nobody but this machine reaches it, so no pod does: it publishes no endpoint of itself.
        network: whose Services it gives addresses to.
        audited: what service accounts ask for is written down, see `audit`.
    """

    folder: Path
    address: str
    ports: tuple[int, int, int] = (6443, 2379, 2380)
    loopback: bool = False
    network: Network = field(default_factory=Network)
    audited: bool = False


class ControlPlane:
    """A control plane's files, written when it is made."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.authority = Authority(plan.folder / "pki")
        self._serving = self.authority.server(
            "apiserver", [plan.address, "127.0.0.1", plan.network.api_service], _NAMES
        )
        self.api, self.kubeconfig = self.user("admin", user="admin", group="system:masters")

    def user(self, name: str, *, user: str, group: str | None = None) -> tuple[Api, Path]:
        """Make a user.

        Returns:
            the API server as that user sees it, and the path of the user's kubeconfig.
        """
        certificate, key = self.authority.client(name, user=user, group=group)
        url = f"https://{self.plan.address}:{self.plan.ports[0]}"
        api = Api(url, self.authority.certificate, certificate, key)
        return api, api.write_kubeconfig(self.plan.folder / f"{name}.kubeconfig", user=user)

    def etcd(self) -> list[str]:
        """Arguments of etcd."""
        _, clients, peers = self.plan.ports
        at, peer = f"http://127.0.0.1:{clients}", f"http://127.0.0.1:{peers}"
        return [
            *("etcd", "--name", "only", "--data-dir", str(self.plan.folder / "etcd"), "--log-level", "warn"),
            *("--listen-client-urls", at, "--advertise-client-urls", at),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"only={peer}"),
            "--unsafe-no-fsync",  # a cluster for a day: a start that nobody needs to survive a power cut
        ]

    def apiserver(self) -> list[str]:
        """Arguments of kube-apiserver."""
        plan, signing = self.plan, str(self.authority.service_accounts)
        port, etcd, _ = plan.ports
        certificate, key = self._serving
        kubelet = self.api  # the admin may read logs and run commands in pods
        reach = ["--endpoint-reconciler-type", "none"] if plan.loopback else []
        audited = audit.arguments(plan.folder) if plan.audited else []
        return [
            *("apiserver", "--etcd-servers", f"http://127.0.0.1:{etcd}"),
            *("--bind-address", plan.address, "--advertise-address", plan.address, "--secure-port", str(port), *reach),
            *("--tls-cert-file", str(certificate), "--tls-private-key-file", str(key)),
            *("--client-ca-file", str(self.authority.certificate)),
            *("--service-account-issuer", "https://kubernetes.default.svc"),
            *("--service-account-key-file", signing, "--service-account-signing-key-file", signing),
            *(
                "--service-cluster-ip-range",
                plan.network.services,
                "--authorization-mode",
                "Node,RBAC",
                "--allow-privileged",
            ),
            *("--enable-admission-plugins", "NodeRestriction"),
            *("--kubelet-client-certificate", str(kubelet.certificate), "--kubelet-client-key", str(kubelet.key)),
            *("--kubelet-preferred-address-types", "InternalIP"),
            *audited,
        ]

    def controller_manager(self) -> list[str]:
        """Arguments of kube-controller-manager; it serves nothing that anybody asks for."""
        _, config = self.user("controller-manager", user="system:kube-controller-manager")
        return [
            *("controller-manager", "--kubeconfig", str(config), "--leader-elect=false", "--secure-port", "0"),
            *("--service-account-private-key-file", str(self.authority.service_accounts)),
            *("--root-ca-file", str(self.authority.certificate), "--use-service-account-credentials"),
        ]

    def scheduler(self) -> list[str]:
        """Arguments of kube-scheduler."""
        _, config = self.user("scheduler", user="system:kube-scheduler")
        return ["scheduler", "--kubeconfig", str(config), "--leader-elect=false", "--secure-port", "0"]
