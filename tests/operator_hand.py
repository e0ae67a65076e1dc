"""The operator as a real process, and a hand that plays what a control plane without nodes lacks: kubelets.

The hand runs the real plan verb for a planner's pod, sends ranges through the real ledger protocol, and writes
the pods' statuses as a kubelet would; the Job controller does the rest.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg2

from mailfleet_sender.contract.accounts import OutcomeKind
from mailfleet_sender.ledger import Outcome, OwnedRange, Positions, Timing, migrate, open_ledger
from mailfleet_sender.planning import plan_run
from mailfleet_sender.preflighting import preflight
from mailfleet_sender.settings import Environment, PreflightSettings
from services import free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from kube import ControlPlane

Manifest = dict[str, Any]
IMAGE = "mailfleet-sender:test"


MANY_LIVES = """
import ctypes, os, signal, sys
from mailfleet_operator.__main__ import main
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True:
    child = os.fork()
    if not child:
        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: it ends with its parent
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.exit(main())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(f"this life of the operator ended with {code}", file=sys.stderr, flush=True)
    if code != 86:
        sys.exit(f"the operator ended by itself with {code}")
"""
"""A program that starts the operator again when it ended at a boundary (see `mailfleet_operator.boundaries`), without
the seconds that its imports take."""


class OperatorProcess:
    """`python -m mailfleet_operator` against a control plane.

    Attributes:
        program: what Python runs.
    """

    program: tuple[str, ...] = ("-W", "error::RuntimeWarning", "-m", "mailfleet_operator")

    def __init__(self, plane: ControlPlane, folder: Path, *, ledger_url: str, redis_url: str, **variables: str) -> None:
        self.log = folder / "operator.log"
        self.port, self.metrics_port = free_port(), free_port()
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "KUBECONFIG": str(plane.kubeconfig),
            "MAILFLEET_LEDGER_URL": ledger_url,
            "MAILFLEET_REDIS_URL": redis_url,
            "MAILFLEET_SENDER_IMAGE": IMAGE,
            "MAILFLEET_TICK_SECONDS": "0.5",
            "MAILFLEET_STATUS_SECONDS": "1",
            "MAILFLEET_HEALTH_PORT": str(self.port),
            "MAILFLEET_METRICS_PORT": str(self.metrics_port),
            **variables,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.program],
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """kill -9."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    @property
    def lives(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.lives:
            self.kill()


@dataclass
class Hand:
    """What a test does in one namespace: a person with kubectl, and the kubelet."""

    plane: ControlPlane
    namespace: str
    ledger_url: str
    database_url: str

    def __post_init__(self) -> None:
        self.engine = open_ledger(self.ledger_url, application_name="hand", pool_size=2)
        self.timing = Timing(lease_seconds=2, margin_seconds=0.5)

    # --- a person --------------------------------------------------------------------------------------
    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        return self.plane.kubectl("-n", self.namespace, *args, stdin=stdin, check=check)

    def apply(self, *manifests: Manifest) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    def patch(self, name: str, spec: Manifest) -> None:
        self.kubectl("patch", "emailcampaign", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def get(self, kind: str, name: str) -> Manifest:
        body: Manifest = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return body

    def list(self, kind: str, selector: str = "") -> list[Manifest]:
        items: list[Manifest] = json.loads(self.kubectl("get", kind, "-l", selector, "-o", "json"))["items"]
        return items

    def status(self, name: str) -> Manifest:
        status: Manifest = self.get("emailcampaign", name).get("status") or {}
        return status

    def condition(self, name: str, type_: str) -> Manifest:
        conditions = self.status(name).get("conditions") or ()
        return next((c for c in conditions if c["type"] == type_), {})

    def wait_for_reason(self, name: str, type_: str, reason: str, seconds: float = 30) -> Manifest:
        def probe() -> Manifest | None:
            found = self.condition(name, type_)
            return found if found.get("reason") == reason else None

        try:
            return wait_for(f"{type_} for {reason}", probe, seconds=seconds, interval=0.2)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; status: {json.dumps(self.status(name))}") from None

    def people(self, count: int, table: str = "subscribers") -> None:
        """A table of recipients in the recipients' database."""
        self.sql(f"CREATE TABLE {table} (id bigint PRIMARY KEY, email text, first_name text)")
        self.sql(f"INSERT INTO {table} SELECT i, 'p' || i || '@example.com', 'P' FROM generate_series(1, {count}) i")

    def sql(self, statement: str) -> None:
        connection = psycopg2.connect(self.database_url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    # --- the kubelet ------------------------------------------------------------------------------------
    def jobs(self, component: str, campaign: str = "") -> list[Manifest]:
        selector = f"app.kubernetes.io/component={component}"
        return self.list("jobs", f"{selector},mailfleet.dev/campaign={campaign}" if campaign else selector)

    def pods(self, job: str) -> list[Manifest]:
        pods = self.list("pods", f"batch.kubernetes.io/job-name={job}")
        return [p for p in pods if p.get("status", {}).get("phase", "Pending") in {"Pending", "Running"}]

    def pod_status(self, pod: str, phase: str, state: Manifest) -> None:
        container = {"name": "x", "image": "x", "imageID": "", "ready": phase == "Running", "restartCount": 0}
        status = {"phase": phase, "containerStatuses": [{**container, "state": state}]}
        patch = json.dumps({"status": status})
        self.kubectl("patch", "pod", pod, "--subresource=status", "--type=merge", "-p", patch)

    def evict_from(self, node: str, pod: str) -> None:
        """Bind a pod to a Node, run it there, and delete it: without a kubelet nobody ends it."""
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod, "namespace": self.namespace},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/binding"
        self.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(binding))
        self.pod_status(pod, "Running", {"running": {}})
        self.kubectl("delete", "pod", pod, "--grace-period=1", "--wait=false")

    def end_pod(self, pod: str, code: int, reason: str = "", message: str = "") -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        ended = {"exitCode": code, "reason": reason or ("Error" if code else "Completed"), "message": message}
        state = {"terminated": {**ended, "startedAt": at, "finishedAt": at}}
        self.pod_status(pod, "Failed" if code else "Succeeded", state)

    def wait_for_pod(self, component: str, campaign: str = "") -> Manifest:
        def probe() -> Manifest | None:
            pods = [p for j in self.jobs(component, campaign) for p in self.pods(j["metadata"]["name"])]
            return pods[0] if pods else None

        return wait_for(f"a pod of a {component}", probe, interval=0.2)

    def plan(self, campaign: str = "") -> int:
        """Play the planner's pod with the real verb.

        Returns:
            its exit code.
        """
        pod = self.wait_for_pod("planner", campaign)
        name, variables = pod["metadata"]["name"], environment(pod)
        with tempfile.TemporaryDirectory() as folder:
            self._mount(pod, Path(folder))
            code = int(
                plan_run(
                    self.engine,
                    run=int(variables["MAILFLEET_RUN"]),
                    database_url=self.database_url,
                    reporter=name,
                    config_folder=Path(folder),
                    ledger_url=self.ledger_url,
                )
            )
        self.end_pod(name, code)
        return code

    def fly(self, relay: str) -> int:
        """Play a preflight's pod with the real verb, as the kubelet would start it.

        Returns:
            its exit code.
        """
        pod = self.preflight_pod(relay)
        name = pod["metadata"]["name"]
        variables = {**environment(pod), "MAILFLEET_LEDGER_URL": self.ledger_url, "MAILFLEET_POD_NAME": name}
        for variable in pod["spec"]["containers"][0]["env"]:
            reference = variable.get("valueFrom", {}).get("secretKeyRef", {})
            if variable["name"].startswith("MAILFLEET_SMTP_") and reference:
                data = self.get("secret", reference["name"])["data"][reference["key"]]
                variables[variable["name"]] = base64.b64decode(data).decode()
        code = int(preflight(PreflightSettings.read(Environment(variables))))
        self.end_pod(name, code)
        return code

    def preflight_pod(self, relay: str) -> Manifest:
        """The pod of a relay's preflight."""

        def probe() -> Manifest | None:
            jobs = [j for j in self.preflights(relay) if "deletionTimestamp" not in j["metadata"]]
            pods = [p for j in jobs for p in self.pods(j["metadata"]["name"])]
            return pods[0] if pods else None

        return wait_for(f"a preflight of {relay}", probe, interval=0.2)

    def preflights(self, relay: str) -> list[Manifest]:
        """The Jobs of a relay's preflights."""
        jobs = self.list("jobs", "app.kubernetes.io/component=preflight")
        return [j for j in jobs if j["metadata"]["annotations"]["mailfleet.dev/relay"] == relay]

    def _mount(self, pod: Manifest, folder: Path) -> None:
        """The pod's ConfigMaps as files; one that is not there is left out."""
        for volume in pod["spec"]["volumes"]:
            if source := volume.get("configMap"):
                name = source["name"]
                found = self.kubectl("get", "configmap", name, "-o", "json", "--ignore-not-found")
                data = json.loads(found).get("data", {}) if found else {}
                (folder / name).mkdir()
                for item in source["items"]:
                    if item["key"] in data:
                        (folder / name / item["path"]).write_text(data[item["key"]])

    def send(self, job: Manifest, index: int, *, upto: int | None = None, kind: OutcomeKind = OutcomeKind.SENT) -> None:
        """Play a sender of one range: claim and record `upto` recipients, or all; then its pod ends."""
        variables = environment(job["spec"]["template"])
        held = OwnedRange.acquire(
            self.engine,
            run=int(variables["MAILFLEET_RUN"]),
            wave=int(variables["MAILFLEET_WAVE"]),
            index=index,
            owner=uuid.uuid4(),
            timing=self.timing,
        )
        assert isinstance(held, OwnedRange), held
        end = min(held.planned, held.position + upto) if upto else held.planned
        now = Positions.span(held.position, end)
        keys = held.recipients(now)
        held.claim(end, now)
        seconds = 1 if kind is OutcomeKind.DEFERRED else None
        held.record(
            [
                Outcome(k.position, k.key, kind, attempt=k.attempt + 1, code="250", retry_after_seconds=seconds)
                for k in keys
            ]
        )
        if not held.ended:
            held.drain()

    def send_all(self, campaign: str, *, kind: OutcomeKind = OutcomeKind.SENT) -> None:
        """Play all senders of the Jobs that are there."""
        for job in self.jobs("sender", campaign):
            name = job["metadata"]["name"]
            for index in range(job["spec"]["completions"]):
                self.send(job, index, kind=kind)
            self.finish(name)

    def finish(self, job: str) -> None:
        """End the pods of a Job until it is complete."""

        def probe() -> bool:
            for pod in self.pods(job):
                self.end_pod(pod["metadata"]["name"], 0)
            conditions = self.get("job", job).get("status", {}).get("conditions") or ()
            return any(c["type"] == "Complete" and c["status"] == "True" for c in conditions)

        wait_for(f"Job {job} is complete", probe, interval=0.3)


def environment(pod: Manifest) -> dict[str, str]:
    """The plain variables of a pod's container."""
    return {v["name"]: v["value"] for v in pod["spec"]["containers"][0]["env"] if "value" in v}


def fresh_ledger(database: Callable[[], str]) -> str:
    """A migrated, empty ledger; its URL."""
    url = database()
    migrate(url)
    return url
