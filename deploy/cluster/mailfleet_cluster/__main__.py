"""`python3 -m mailfleet_cluster up|down|images|warm|env`: what the Makefile calls."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path

from mailfleet_cluster import binaries, images, places
from mailfleet_cluster.errors import ClusterError, UnsupportedError
from mailfleet_cluster.existing import ExistingCluster
from mailfleet_cluster.kind import KindCluster
from mailfleet_cluster.local import LocalCluster, install_packages
from mailfleet_cluster.network import Network
from mailfleet_cluster.places import say

Cluster = ExistingCluster | KindCluster | LocalCluster


def chosen(folder: Path) -> Cluster:
    """The cluster to use: the one named by $CLUSTER, else the one there is, else kind, else the local one.

    Raises:
        UnsupportedError: $CLUSTER names something unknown, or kind where it cannot be.
    """
    note = folder / "kind-of-cluster"
    there = note.read_text(encoding="utf-8") if note.exists() else ""
    named = os.environ.get("CLUSTER") or there
    if named == "existing":
        return ExistingCluster(folder)
    if named in {"", "kind"} and (by_kind := KindCluster.possible(folder)):
        return by_kind
    if named == "kind":
        raise UnsupportedError("CLUSTER=kind: neither Docker nor Podman works here, or kind's images cannot be pulled")
    if named in {"", "local"}:
        return local_cluster(folder)
    raise UnsupportedError(f"CLUSTER={named}: known are existing, kind and local")


def local_cluster(folder: Path) -> LocalCluster:
    """The local cluster of this folder of state, in its own block of addresses."""
    return LocalCluster(folder, Network.of(folder, places.usual_state()))


def up(folder: Path) -> Cluster:
    """A running cluster, with kubectl and helm beside its kubeconfig."""
    cluster = chosen(folder)
    cluster.up()
    kind = {ExistingCluster: "existing", KindCluster: "kind", LocalCluster: "local"}[type(cluster)]
    (folder / "kind-of-cluster").write_text(kind, encoding="utf-8")
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    for name, program in (("kubectl", binaries.KUBE), ("helm", binaries.HELM_CLIENT)):
        link = tools / name
        binary = program.path if isinstance(cluster, LocalCluster) else Path(shutil.which(name) or program.path)
        if not binary.exists():
            program.built()
        if not link.is_symlink() or link.readlink() != binary:
            link.unlink(missing_ok=True)
            link.symlink_to(binary)
    (folder / "cluster.env").write_text(environment(folder), encoding="utf-8")
    return cluster


def environment(folder: Path) -> str:
    """What a shell sets to use the cluster."""
    tools, kubeconfig = shlex.quote(str(folder / "bin")), shlex.quote(str(folder / "admin.kubeconfig"))
    return f"export KUBECONFIG={kubeconfig}\nexport PATH={tools}:$PATH\n"


def warm(folder: Path) -> None:
    """Make what is costly and does not change, so that a later start is quick."""
    cluster = chosen(folder)
    if isinstance(cluster, LocalCluster):
        install_packages()
        cluster.base()
    judges = (binaries.HELM_4, binaries.KUBECONFORM, binaries.ARGOCD)
    for program in (binaries.PAUSE, binaries.DNS, binaries.HELM_CLIENT, binaries.KUBE, *judges):
        program.built()


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="mailfleet_cluster", description=__doc__)
    verbs = ("up", "down", "images", "warm", "env")
    parser.add_argument("verb", choices=verbs, help="up and down: the cluster; images: build them and bring them to it")
    verb, folder = parser.parse_args().verb, places.state()
    try:
        if verb == "env":
            print(environment(folder), end="")
            return 0
        with places.locked("warm" if verb == "warm" else f"cluster{Network.of(folder, places.usual_state()).number}"):
            if verb == "warm":
                warm(folder)
            elif verb == "down":
                down(folder)
            else:
                cluster = up(folder)
                if verb == "images":
                    names = images.bring(cluster)
                    images.write(names, folder)
                    print((folder / "images.env").read_text(encoding="utf-8"), end="")
                else:
                    print(environment(folder), end="")
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    return 0


def down(folder: Path) -> None:
    """Remove whatever of a cluster there is."""
    note = folder / "kind-of-cluster"
    if note.exists() and note.read_text(encoding="utf-8") != "local":
        chosen(folder).down()
    else:  # also what a crash left before the note was written
        local_cluster(folder).down()


if __name__ == "__main__":
    sys.exit(main())
