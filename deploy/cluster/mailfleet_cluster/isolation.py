"""What keeps the local cluster apart from the machine, and lets all of it be found and removed again.

- A network namespace, pinned by a mount at <state>/net: all addresses of the cluster but the host's are in it.
- A private mount namespace for containerd and kubelet: every mount of every pod is in there, and goes
  with the last process; so do the pods' network namespaces, which are files on a hidden /run/netns.
- A control group of its own at the root of each hierarchy: every process of every pod is below it.

So a process of the cluster is one in this network namespace or in this control group, whoever started it
and whatever was written down before a crash.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mailfleet_cluster.commands import run, wait_for
from mailfleet_cluster.processes import Processes, kill_all, living_pids

if TYPE_CHECKING:
    from mailfleet_cluster.network import Network

_HIDDEN = ("/run/containerd", "/run/netns", "/var/lib/cni", "/var/lib/kubelet", "/var/log/pods", "/var/log/containers")
"""Folders that containerd, its shims, the CNI plugins and kubelet use without a setting to move them."""


class Isolation:
    """The namespaces and control groups of the cluster whose state is in `folder`."""

    def __init__(self, folder: Path, network: Network) -> None:
        self._folder, self._net, self._network = folder, folder / "net", network
        self._made = folder / "made-folders"

    def inside(self, *, mounts_of: int | None = None) -> list[str]:
        """The words before a command that runs in the network namespace, and where `mounts_of` has its mounts."""
        # Not `ip netns exec`: that remounts /sys and hides the control groups.
        return ["nsenter", f"--net={self._net}", *([f"--mount=/proc/{mounts_of}/ns/mnt"] if mounts_of else []), "--"]

    def with_private_mounts(self) -> list[str]:
        """The words before the command that makes the private mount namespace, by being its first process."""
        hide = "".join(
            f"mkdir -p {self._folder}/hidden{path} && mount --bind {self._folder}/hidden{path} {path} && "
            for path in _HIDDEN
        )
        script = f'mount --make-rshared / && {hide}exec "$@"'
        return [*self.inside(), "unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]

    def create(self) -> None:
        """Make all of it; nothing of it may exist."""
        self._net.touch()
        run("unshare", f"--net={self._net}", "true")
        network, link = self._network, self._network.link
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(self._net))
        run("ip", "address", "add", f"{network.host}/24", "dev", link)
        run("ip", "link", "set", link, "up")
        for command in (
            "ip link set lo up",
            f"ip address add {network.node}/24 dev eth0",
            "ip link set eth0 up",
            f"ip route add default via {network.host}",
            "sysctl -qw net.ipv4.ip_forward=1",
        ):
            run(*self.inside(), *command.split())
        for addresses in (network.pods, network.services):  # the host reaches pods and Services
            run("ip", "route", "add", addresses, "via", network.node, "dev", link)
        made = [p for p in map(Path, _HIDDEN) if not p.exists()]
        self._made.write_text("\n".join(map(str, made)), encoding="utf-8")
        for path in made:
            path.mkdir(parents=True, exist_ok=True)
        for hierarchy in cgroup_hierarchies():
            (hierarchy / network.cgroup).mkdir(exist_ok=True)

    def exists(self) -> bool:
        """Whether the network namespace is there, and its cable."""
        return self._namespace() is not None and self.link_exists()

    def link_exists(self) -> bool:
        """Whether the host's end of the cable is there."""
        return Path("/sys/class/net", self._network.link).exists()

    def processes(self) -> list[int]:
        """The living processes in the network namespace."""
        if (mine := self._namespace()) is None:
            return []
        return [pid for pid in living_pids() if _identity(Path(f"/proc/{pid}/ns/net")) == mine]

    def remove(self, processes: Processes) -> None:
        """End every process and take everything away, whatever state it is in.

        Raises:
            NotReadyError: a process or a control group does not go away.
        """
        # kubelet first: it would start again what ends.
        first = [pid for name, pid in processes.living().items() if name == "kubelet"]
        kill_all("kubelet", lambda: [p for p in first if p in processes.living().values()])
        kill_all("the cluster's processes", lambda: {*processes.living().values(), *self.processes()})
        kill_all("the pods' processes", self.pod_processes)
        if self.link_exists():
            run("ip", "link", "delete", self._network.link)  # its routes go with it
        for mount in mounts_below(self._folder):
            run("umount", "--lazy", mount)
        for folder in self._made.read_text(encoding="utf-8").splitlines() if self._made.exists() else []:
            with contextlib.suppress(OSError):  # not empty: somebody else uses it now
                Path(folder).rmdir()
        wait_for("the end of the control groups", self._cgroups_removed, seconds=20)
        if self._folder.exists():
            shutil.rmtree(self._folder)

    def cgroups(self) -> list[Path]:
        """The cluster's control groups, in all hierarchies."""
        roots = [h / self._network.cgroup for h in cgroup_hierarchies()]
        return [p for root in roots if root.exists() for p in [root, *(d for d in root.rglob("*") if d.is_dir())]]

    def pod_processes(self) -> set[int]:
        """The processes in the cluster's control groups: those of its pods."""
        found: set[int] = set()
        for group in self.cgroups():
            with contextlib.suppress(OSError):  # it went away meanwhile
                found.update(map(int, (group / "cgroup.procs").read_text(encoding="utf-8").split()))
        return found

    def _cgroups_removed(self) -> bool:
        for group in sorted(self.cgroups(), reverse=True):
            with contextlib.suppress(OSError):  # the kernel still counts a process that ended
                group.rmdir()
        return not self.cgroups()

    def _namespace(self) -> tuple[int, int] | None:
        """The identity of the pinned network namespace; None if there is none."""
        mine = _identity(self._net)
        # A file that is no mount (a crash, a restart of the machine) is on the disk's device, not on nsfs.
        return mine if mine and self._net in mounts_below(self._folder) and mine != _own_network() else None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _own_network() -> tuple[int, int] | None:
    return _identity(Path("/proc/self/ns/net"))


def mounts_below(folder: Path) -> list[Path]:
    """The mount points below a folder, the last mounted first."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    points = [Path(os.fsdecode(line.split()[1].encode().decode("unicode_escape"))) for line in lines]
    return [p for p in reversed(points) if p.is_relative_to(folder)]


def cgroup_hierarchies() -> list[Path]:
    """The roots of the control group hierarchies of this machine, version 1 and 2."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines())
    return [Path(m[1]) for m in mounts if m[2] in {"cgroup", "cgroup2"}]
