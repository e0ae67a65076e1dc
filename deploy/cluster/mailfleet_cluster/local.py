"""The local cluster: the official components as processes of this machine, one node, a network of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mailfleet_cluster import audit, builder, node, pause_image
from mailfleet_cluster.api import Api
from mailfleet_cluster.binaries import DNS, KUBE, PAUSE
from mailfleet_cluster.commands import need, run, wait_for
from mailfleet_cluster.control_plane import ControlPlane, Plan
from mailfleet_cluster.errors import ClusterError, UnsupportedError
from mailfleet_cluster.isolation import Isolation, mounts_below
from mailfleet_cluster.places import CHECKOUT, say
from mailfleet_cluster.processes import Processes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mailfleet_cluster.network import Network

_TOOLS = (
    *("buildah", "containerd", "ctr", "runc", "debootstrap", "openssl"),
    *("conntrack", "ip", "iptables", "nsenter", "sysctl", "umount", "unshare"),
)
_PARTS = (
    *("etcd", "apiserver", "controller-manager", "scheduler"),
    *("containerd", "kubelet", "proxy", "dns"),
)


class LocalCluster:
    """The cluster whose state is in `folder`, with the addresses of `network`."""

    registry = "localhost"

    def __init__(self, folder: Path, network: Network) -> None:
        self.folder, self.network = folder, network
        self.kubeconfig = folder / "admin.kubeconfig"
        self._isolation, self._processes = Isolation(folder, network), Processes(folder)

    def up(self) -> None:
        """Make sure that it runs: take a healthy one as it is, else clear away what is there and start anew.

        Raises:
            UnsupportedError: not root.
            MissingToolError: a Debian package or Go is missing.
            NotReadyError: a part does not come up; the message names its log.
        """
        if self.healthy():
            return
        if os.geteuid() != 0:
            raise UnsupportedError(
                "without kind, the local cluster needs root: it makes network and mount namespaces. "
                "Run `sudo make cluster`, install Docker and kind's image, or name a cluster: CLUSTER=existing"
            )
        install_packages()
        programs = {program.name: program.built() for program in (KUBE, DNS, PAUSE)}
        if self.remains():
            say(f"what is left of an earlier cluster is cleared away ({', '.join(self.remains())})")
            self.down()
        began = time.monotonic()
        try:
            self._start(programs)
        except ClusterError:
            for name in _PARTS:
                if not self._processes.pid(name):
                    say(f"{name} does not run; its log: {self._processes.log(name)}")
            raise
        say(f"the cluster is up after {time.monotonic() - began:.0f} s")

    def healthy(self) -> bool:
        """Whether every part runs, from these binaries and audited by this policy, and the node takes pods."""
        return (
            self._made_from() == _sources()
            and audit.is_kept(self.folder)
            and set(_PARTS) <= set(self._processes.living())
            and self._isolation.exists()
            and (api := self._api()).ready()
            and api.node_ready(node.NAME)
            and node.dns_ready(self.network)
        )

    def down(self) -> None:
        """Remove all of it, also after a crash half-way; without a cluster this does nothing."""
        if self.remains():
            self._isolation.remove(self._processes)

    def remains(self) -> list[str]:
        """What there is of a cluster, whole or not, in words."""
        found = {
            f"{len(self._isolation.processes())} processes": bool(self._isolation.processes()),
            "mounts": bool(mounts_below(self.folder)),
            "network link": self._isolation.link_exists(),
            "control groups": bool(self._isolation.cgroups()),
            "files": self.folder.exists(),
        }
        return [what for what, there in found.items() if there]

    def base(self) -> str:
        """The base image, made by debootstrap."""
        return builder.base()

    def present(self) -> set[str]:
        """The images that the node has."""
        return node.Runtime(self.folder).images()

    def build(self, name: str, dockerfile: str, target: str) -> None:
        """Build it with buildah."""
        builder.build(name, Path(dockerfile), target)

    def load(self, names: Sequence[str]) -> None:
        """Bring images from buildah's store to the node."""
        for name in names:
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                archive = Path(folder) / "image.tar"
                builder.save(name, archive)
                node.Runtime(self.folder).import_image(archive)

    def _start(self, programs: dict[str, Path]) -> None:
        self.folder.mkdir(parents=True, mode=0o755)
        self._isolation.create()
        plane = ControlPlane(Plan(self.folder, self.network.node, network=self.network, audited=True))
        this, runtime = node.Node(self.folder, plane), node.Runtime(self.folder)
        kube, inside = str(programs["kube"]), self._isolation.inside()

        def start(name: str, command: list[str], before: list[str] = inside) -> int:
            return self._processes.start(name, [*before, *command], cwd=self.folder)

        start("etcd", [kube, *plane.etcd()])
        start("apiserver", [kube, *plane.apiserver()])
        containerd = start("containerd", this.containerd(), self._isolation.with_private_mounts())
        self._wait("containerd serves", "containerd", runtime.answers)
        archive = self.folder / "pause.tar"
        pause_image.write(programs["pause"], archive)
        runtime.import_image(archive)
        self._wait("the API server is ready", "apiserver", plane.api.ready)
        start("controller-manager", [kube, *plane.controller_manager()])
        start("scheduler", [kube, *plane.scheduler()])
        start("kubelet", [kube, *this.kubelet()], self._isolation.inside(mounts_of=containerd))
        start("proxy", [kube, *this.proxy()])
        start("dns", [str(programs["coredns"]), *this.dns()])
        self._wait("the node is Ready", "kubelet", lambda: plane.api.node_ready(node.NAME))
        self._wait("the controllers work", "controller-manager", plane.api.controllers_ready)
        self._wait("DNS knows the Services", "dns", lambda: node.dns_ready(self.network))
        (self.folder / "made-from").write_text(_sources(), encoding="utf-8")  # last: from now on it is whole

    def _wait(self, what: str, part: str, probe: Callable[[], bool]) -> None:
        wait_for(f"{what} (log: {self._processes.log(part)})", probe, seconds=90)

    def _made_from(self) -> str:
        note = self.folder / "made-from"
        return note.read_text(encoding="utf-8") if note.exists() else ""

    def _api(self) -> Api:
        keys = self.folder / "pki"
        return Api(f"https://{self.network.node}:6443", keys / "ca.crt", keys / "admin.crt", keys / "admin.key")


def install_packages() -> None:
    """Install the Debian packages that are missing.

    Raises:
        CommandError: they cannot be installed.
        MissingToolError: a program is missing nevertheless.
    """
    if not all(map(shutil.which, _TOOLS)):
        say("installing Debian packages ...")
        run(CHECKOUT / "deploy" / "debian-packages.sh", "cluster")
    for tool in _TOOLS:
        need(tool)


def _sources() -> str:
    """The binaries of this checkout: a cluster made from others is another cluster."""
    return "\n".join(program.path.name for program in (KUBE, DNS, PAUSE))
