"""The node of the local cluster: containerd, kubelet, kube-proxy and CoreDNS with their configuration."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mailfleet_cluster import pause_image
from mailfleet_cluster.commands import run, works
from mailfleet_cluster.errors import MissingToolError

if TYPE_CHECKING:
    from mailfleet_cluster.control_plane import ControlPlane
    from mailfleet_cluster.network import Network

NAME = "mailfleet"
"""The node's name."""
DOMAIN = "cluster.local"


class Runtime:
    """The running containerd of the cluster in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "containerd.sock"

    def import_image(self, archive: Path) -> None:
        """Give it the images of a `docker save` archive."""
        self._images("import", archive)

    def images(self) -> set[str]:
        """The names of the images that it has."""
        return set(self._images("list", "--quiet").split())

    def answers(self) -> bool:
        """Whether it serves images yet."""
        return works("ctr", "--address", self.socket, "--namespace", "k8s.io", "images", "list", "--quiet", seconds=10)

    def _images(self, *words: str | Path) -> str:
        return run("ctr", "--address", self.socket, "--namespace", "k8s.io", "images", *words)


class Node:
    """Configuration files of a node in the folder of the cluster, and the command lines that use them."""

    def __init__(self, folder: Path, control_plane: ControlPlane) -> None:
        self._folder, self._plane = folder, control_plane

    def containerd(self) -> list[str]:
        """The command of containerd."""
        config = self._write(
            "containerd.toml",
            f"""
version = 2
root = "{self._folder}/containerd/root"
state = "{self._folder}/containerd/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs",
                    "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{Runtime(self._folder).socket}"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true  # without CAP_SYS_RESOURCE nobody may lower it
  sandbox_image = "{pause_image.NAME}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_cni_plugins()}"
    conf_dir = "{self._folder}/cni"
""",
        )
        ranges = [[{"subnet": self._plane.plan.network.pods}]]
        ipam = {"type": "host-local", "dataDir": f"{self._folder}/ipam", "ranges": ranges}
        bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "ipMasq": True, "hairpinMode": True}
        plugins: list[dict[str, Any]] = [
            {**bridge, "ipam": {**ipam, "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ]
        self._write_json("cni/mailfleet.conflist", {"cniVersion": "0.4.0", "name": "mailfleet", "plugins": plugins})
        return ["containerd", "--config", str(config)]

    def kubelet(self) -> list[str]:
        """Arguments of kubelet."""
        net = self._plane.plan.network
        _, kubeconfig = self._plane.user("kubelet", user=f"system:node:{NAME}", group="system:nodes")
        resolver = self._write("resolv.conf", f"nameserver {net.node}\n")
        config = self._write_json(
            "kubelet.json",
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "authentication": {
                    "anonymous": {"enabled": False},
                    "webhook": {"enabled": True},
                    "x509": {"clientCAFile": str(self._plane.authority.certificate)},
                },
                "authorization": {"mode": "Webhook"},
                "cgroupDriver": "cgroupfs",
                "cgroupRoot": f"/{net.cgroup}",
                "clusterDNS": [net.node],
                "clusterDomain": DOMAIN,
                "containerRuntimeEndpoint": f"unix://{Runtime(self._folder).socket}",
                "enforceNodeAllocatable": [],
                "evictionHard": {"memory.available": "1Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
                "failCgroupV1": False,  # older machines: 1.35 refuses them otherwise
                "failSwapOn": False,
                "featureGates": {"KubeletInUserNamespace": True},  # go on where a sysctl is refused
                "imageGCHighThresholdPercent": 100,  # never: our images cannot be pulled again
                "podLogsDir": f"{self._folder}/pod-logs",
                "resolvConf": str(resolver),
                "serializeImagePulls": False,
                "volumePluginDir": f"{self._folder}/kubelet/volume-plugins",
            },
        )
        return [
            *("kubelet", "--config", str(config), "--kubeconfig", str(kubeconfig)),
            *("--hostname-override", NAME, "--node-ip", net.node),
            *("--root-dir", f"{self._folder}/kubelet", "--cert-dir", f"{self._folder}/kubelet-pki"),
        ]

    def proxy(self) -> list[str]:
        """Arguments of kube-proxy."""
        _, kubeconfig = self._plane.user("proxy", user="system:kube-proxy")
        config = self._write_json(
            "proxy.json",
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "clientConnection": {"kubeconfig": str(kubeconfig)},
                "mode": "iptables",
                # Zero leaves the machine's conntrack limits alone; inside a namespace they cannot be set.
                "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            },
        )
        return ["proxy", "--config", str(config), "--hostname-override", NAME]

    def dns(self) -> list[str]:
        """Arguments of CoreDNS: it knows the cluster's names and answers that any other does not exist."""
        net = self._plane.plan.network
        _, kubeconfig = self._plane.user("dns", user="dns", group="system:masters")
        corefile = self._write(
            "Corefile",
            f""".:53 {{
    bind {net.node}
    ready {net.node}:8181
    errors
    cache 5
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        ttl 5
    }}
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
""",
        )
        return ["-conf", str(corefile)]

    def _write(self, name: str, text: str) -> Path:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def _write_json(self, name: str, value: dict[str, Any]) -> Path:
        return self._write(name, json.dumps(value, indent=1) + "\n")


def dns_ready(network: Network) -> bool:
    """Whether CoreDNS has read the cluster's Services."""
    try:
        with urllib.request.urlopen(f"http://{network.node}:8181/ready", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def _cni_plugins() -> Path:
    for folder in map(Path, ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")):
        if (folder / "bridge").exists():
            return folder
    raise MissingToolError("no CNI plugins found: run `make packages` as root (containernetworking-plugins)")
