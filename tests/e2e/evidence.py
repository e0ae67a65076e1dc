"""All that is written and shown anywhere while the tests run, kept until the last of them looks through it.

Pods come and go: their logs are kept by hard links, which outlive the kubelet's own names; every version of every
object comes by a watch; metrics and process lists are looked at again and again. On the local cluster alone, whose node
is this machine.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import shutil
import socket
import ssl
import threading
import time
import urllib.request
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from e2e.needles import Needles
from e2e.rights import account_of
from mailfleet_cluster import audit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

LOGS_SECONDS, SAMPLE_SECONDS, AGAIN_SECONDS = 0.2, 1.0, 0.5
PATHS = {
    "event": "/api/v1/events",
    "job": "/apis/batch/v1/jobs",
    "pod": "/api/v1/pods",
    "namespace": "/api/v1/namespaces",
    "secret": "/api/v1/secrets",
    "campaign": "/apis/mailfleet.dev/v1alpha1/emailcampaigns",
    "relay": "/apis/mailfleet.dev/v1alpha1/emailrelays",
    "binding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}
"""What is watched, by what it is called here."""
SHOWN = {"event": "event", "job": "job", "pod": "pod", "campaign": "status", "relay": "status"}
"""Of these, what is searched, and the place that it is."""
PLACES = ("log", "event", "status", "job", "pod", "metrics", "arguments", "environment")
"""Where nothing may be found."""
SINK = "mailfleet/demo-sink"
"""The other side: it is told addresses, and passwords by its arguments."""
OURS = ("mailfleet/operator", "mailfleet/sender")
_POD = re.compile(r"/pod([0-9a-f-]{36})\b")
"""A pod's control group, by its uid."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object, and the time at which it was seen."""

    kind: str
    event: str
    body: dict[str, Any]
    at: float

    @property
    def namespace(self) -> str:
        """Its namespace; of a namespace its own name."""
        metadata = self.body["metadata"]
        return str(metadata["name"] if self.kind == "namespace" else metadata.get("namespace", ""))


class Evidence:
    """Collects from its beginning to its end; use it as a context manager.

    Attributes:
        pods: the newest version of each pod that there was, by uid.
        scraped: uids of the pods whose metrics were read.
        listed: (uid of the pod, arguments) of each process that was seen.
    """

    def __init__(self, cluster: Path) -> None:
        """Of the local cluster in this folder."""
        self._cluster, self._kept = cluster, cluster / "evidence"
        self._since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        self.pods: dict[str, dict[str, Any]] = {}
        self.scraped: set[str] = set()
        self.listed: set[tuple[str, str]] = set()
        self._linked: dict[tuple[int, int], tuple[str, str]] = {}
        self._texts: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._shown: list[tuple[str, str, str, str]] = []
        self._versions: list[Version] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._sockets: dict[str, socket.socket] = {}
        looks = [
            *((AGAIN_SECONDS, partial(self._follow, kind)) for kind in PATHS),
            (LOGS_SECONDS, self._keep_logs),
            (SAMPLE_SECONDS, self._sample),
        ]
        self._threads = [threading.Thread(target=self._again, args=look, daemon=True) for look in looks]
        self.failure: Exception | None = None

    def __enter__(self) -> Self:
        shutil.rmtree(self._kept, ignore_errors=True)
        self._kept.mkdir(mode=0o700)
        self._keep_logs()
        self._old_logs = set(self._linked)  # of pods that were there before
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for watched in list(self._sockets.values()):
            with contextlib.suppress(OSError):
                watched.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        shutil.rmtree(self._kept, ignore_errors=True)

    # --- what was seen -----------------------------------------------------------------------------
    def versions(self, *kinds: str) -> list[Version]:
        """The versions of these kinds that were seen, in order."""
        with self._lock:
            return [v for v in self._versions if v.kind in kinds]

    def requests(self) -> list[dict[str, Any]]:
        """What service accounts asked the API server for since the beginning."""
        lines = (line for file in audit.files(self._cluster) for line in file.read_text().splitlines())
        found = [json.loads(line) for line in lines]
        return [e for e in found if e["requestReceivedTimestamp"] >= self._since and account_of(e)[0] != "kube-system"]

    def logs(self) -> dict[str, set[str]]:
        """Containers whose log is kept, by the pod's uid."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for uid, container in self._linked.values():
            found[uid].add(container)
        return found

    def texts(self) -> Iterator[tuple[str, str, str]]:
        """Every text in which nothing may be found: the place, what it is of, the text."""
        sinks = {uid for uid, pod in self.pods.items() if _has_image(pod, (SINK,))}
        for identity, (uid, container) in list(self._linked.items()):
            if uid not in sinks and identity not in self._old_logs:
                text = self._link(identity).read_text(encoding="utf-8", errors="backslashreplace")
                yield "log", f"{self._name(uid)}/{container}", text
        with self._lock:
            shown = list(self._shown)
            sampled = {place: dict(texts) for place, texts in self._texts.items()}
        for place, name, uid, text in shown:
            if uid not in sinks:
                yield place, name, text
        for place, texts in sampled.items():
            for text, uid in texts.items():
                if uid not in sinks:
                    yield place, self._name(uid), text

    def needles(self) -> Needles:
        """What must not be found: the content of every Secret that a pod of ours could have been given."""
        needles = Needles()
        namespaces = {pod["metadata"]["namespace"] for pod in self.ours().values()}
        for version in (v for v in self.versions("secret") if v.namespace in namespaces):
            where = f"{version.namespace}/{version.body['metadata']['name']}"
            for key, value in (version.body.get("data") or {}).items():
                needles.add(where, key, base64.b64decode(value))
        return needles

    def found(self, within: str = "") -> list[tuple[str, str, str, str]]:
        """Each thing that was found: the place, what it is of, the thing itself, and what kind of thing.

        Args:
            within: part of the name of what is searched.
        """
        needles = self.needles()
        texts = ((place, of, text) for place, of, text in self.texts() if within in of)
        return sorted({(place, of, *found) for place, of, text in texts for found in needles.found_in(text)})

    def ours(self) -> dict[str, dict[str, Any]]:
        """The pods that run Mailfleet itself."""
        return {uid: pod for uid, pod in self.pods.items() if _has_image(pod, OURS)}

    # --- collecting --------------------------------------------------------------------------------
    def _again(self, seconds: float, look: Callable[[], None]) -> None:
        while not self._stop.wait(seconds):
            try:
                look()
            except Exception as error:  # noqa: BLE001 - told by the last test; a thread has nobody to raise to
                self.failure = error

    def _link(self, identity: tuple[int, int]) -> Path:
        return self._kept / f"{identity[0]}-{identity[1]}.log"

    def _keep_logs(self) -> None:
        for pod in (self._cluster / "pod-logs").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it went away meanwhile: it had been kept
                for container in pod.iterdir():
                    for file in container.iterdir():  # also what was rotated
                        if file.suffix not in {".gz", ".tmp"}:
                            self._keep(file, pod.name.rpartition("_")[2], container.name)

    def _keep(self, file: Path, uid: str, container: str) -> None:
        stat = file.stat()
        identity = (stat.st_dev, stat.st_ino)
        if identity not in self._linked:
            self._link(identity).hardlink_to(file)
            self._linked[identity] = (uid, container)

    def _sample(self) -> None:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                self._look_at(process)
        for uid, pod in list(self.pods.items()):
            if pod["status"].get("phase") == "Running" and (url := _metrics_url(pod)):
                with contextlib.suppress(OSError, http.client.HTTPException):  # it has not begun, or has ended
                    self._scrape(uid, url)

    def _scrape(self, uid: str, url: str) -> None:
        with urllib.request.urlopen(url, timeout=2) as answer:
            told = answer.read().decode().splitlines()
        series = {line.rpartition(" ")[0]: uid for line in told if line[:1] != "#"}  # names and labels, not figures
        with self._lock:
            self._texts["metrics"].update(series)
        self.scraped.add(uid)

    def _look_at(self, process: Path) -> None:
        groups = (process / "cgroup").read_text()
        if not (match := _POD.search(groups)) or (pod := match[1]) not in self.pods:
            return
        arguments = _text(process / "cmdline").replace("\0", " ")
        if (pod, arguments) in self.listed:
            return
        with self._lock:
            self._texts["arguments"][arguments] = pod
            if _has_image(self.pods[pod], OURS):
                meant = _from_secrets(self.pods[pod])
                variables = _text(process / "environ").split("\0")
                self._texts["environment"].update({v: pod for v in variables if v.partition("=")[0] not in meant})
        self.listed.add((pod, arguments))

    def _follow(self, kind: str) -> None:
        # Not there yet (our definitions), or the API server ends a watch now and then: the next look begins again.
        with contextlib.suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
            self._watch(kind)

    def _watch(self, kind: str) -> None:
        config = json.loads((self._cluster / "admin.kubeconfig").read_text())
        keys = self._cluster / "pki"
        trust = ssl.create_default_context(cafile=str(keys / "ca.crt"))
        trust.load_cert_chain(keys / "admin.crt", keys / "admin.key")
        address = urlsplit(config["clusters"][0]["cluster"]["server"]).netloc
        connection = http.client.HTTPSConnection(address, context=trust)
        with contextlib.closing(connection):
            connection.request("GET", f"{PATHS[kind]}?watch=true")
            self._sockets[kind] = connection.sock
            if self._stop.is_set():  # looked at after the socket is known: one of us sees the other
                return
            with connection.getresponse() as answer:
                if answer.status == 200:
                    self._take(kind, answer)

    def _take(self, kind: str, lines: Iterable[bytes]) -> None:
        for line in lines:
            event = json.loads(line)
            if event["type"] not in {"ADDED", "MODIFIED", "DELETED"}:
                return
            body = event["object"]
            if kind != "binding" and body["metadata"]["creationTimestamp"] < self._since:
                continue  # what an earlier session left, which is being removed
            body["metadata"].pop("managedFields", None)
            if kind == "pod":
                self.pods[body["metadata"]["uid"]] = body
            namespace, name = body["metadata"].get("namespace", ""), body["metadata"]["name"]
            if kind in SHOWN:
                part = body.get("status") if SHOWN[kind] == "status" else body
                text = json.dumps(part, ensure_ascii=False)
                with self._lock:
                    self._shown.append((SHOWN[kind], f"{kind} {namespace}/{name}", body["metadata"]["uid"], text))
            elif kind != "secret" or body.get("type") == "Opaque":  # Helm's own hold whole charts
                with self._lock:
                    self._versions.append(Version(kind, event["type"], body, time.time()))

    def _name(self, uid: str) -> str:
        metadata = self.pods.get(uid, {}).get("metadata") or {"namespace": "?", "name": uid}
        return f"{metadata['namespace']}/{metadata['name']}"


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "backslashreplace")


def _has_image(pod: dict[str, Any], names: tuple[str, ...]) -> bool:
    return any(f"{name}:" in container["image"] for container in pod["spec"]["containers"] for name in names)


def _from_secrets(pod: dict[str, Any]) -> set[str]:
    """Variables that the kubelet fills from Secrets: there a secret belongs, and the pod's user alone reads it."""
    containers = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
    variables = (v for c in containers for v in c.get("env") or ())
    return {v["name"] for v in variables if "secretKeyRef" in v.get("valueFrom", {})}


def _metrics_url(pod: dict[str, Any]) -> str:
    ports = (p for c in pod["spec"]["containers"] for p in c.get("ports") or () if p.get("name") == "metrics")
    port, address = next(ports, None), pod["status"].get("podIP")
    return f"http://{address}:{port['containerPort']}/metrics" if port and address else ""
