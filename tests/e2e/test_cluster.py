"""The ground that the end-to-end tests stand on: a node that runs restricted pods, with DNS, logs and exec."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from services import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kube import Cluster

NAMESPACE = "cluster-test"
GREETING = "the pod has started"
SERVE = f"""
import http.server
print("{GREETING}", flush=True)
http.server.ThreadingHTTPServer(("", 8000), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def restricted(image: str, code: str, **container: Any) -> dict[str, Any]:
    """The spec of a pod that runs Python code and asks for nothing that restricted Pod Security refuses."""
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "main",
                "image": image,
                "command": ["python3", "-c", code],
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                **container,
            }
        ],
    }


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace in which only restricted pods may run."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
    create(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
    yield NAMESPACE
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture(scope="module")
def pod(cluster: Cluster, namespace: str) -> str:
    """A running pod that serves HTTP on port 8000 behind the Service `site`."""
    metadata = {"name": "probe", "namespace": namespace, "labels": {"app": "probe"}}
    listens = {"tcpSocket": {"port": 8000}, "periodSeconds": 1}
    spec = restricted(cluster.images["sink"], SERVE, readinessProbe=listens)
    create(
        cluster,
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {**metadata, "name": "site"},
            "spec": {"selector": {"app": "probe"}, "ports": [{"port": 80, "targetPort": 8000}]},
        },
    )
    cluster.kubectl("wait", "pod/probe", "-n", namespace, "--for=condition=Ready", "--timeout=200s")
    return "probe"


def create(cluster: Cluster, *manifests: dict[str, Any]) -> None:
    cluster.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))


def python(cluster: Cluster, pod: str, code: str) -> str:
    """Run Python code in the pod."""
    return cluster.kubectl("exec", "-n", NAMESPACE, pod, "--", "python3", "-c", code).strip()


def test_the_node_is_ready_and_may_run_pods(cluster: Cluster) -> None:
    nodes = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    assert len(nodes) == 1
    assert {"type": "Ready", "status": "True"}.items() <= nodes[0]["status"]["conditions"][-1].items()
    assert not nodes[0]["spec"].get("unschedulable")


def test_logs_show_what_a_pod_wrote(cluster: Cluster, pod: str) -> None:
    wait_for("the greeting", lambda: GREETING in cluster.kubectl("logs", "-n", NAMESPACE, pod))


def test_a_pod_resolves_a_service_by_its_short_and_its_full_name(cluster: Cluster, pod: str) -> None:
    names = ("site", f"site.{NAMESPACE}", f"site.{NAMESPACE}.svc.cluster.local")
    address = cluster.kubectl("get", "service", "site", "-n", NAMESPACE, "-o", "jsonpath={.spec.clusterIP}")
    found = python(cluster, pod, f"import socket; print(*(socket.gethostbyname(n) for n in {names}))")
    assert found.split() == [address] * 3


def test_a_name_that_does_not_exist_is_answered_so_and_not_left_open(cluster: Cluster, pod: str) -> None:
    code = (
        "import socket\n"
        "try: socket.gethostbyname('nobody.invalid')\n"
        "except socket.gaierror as e: print(e.errno == socket.EAI_NONAME)"
    )
    assert python(cluster, pod, code) == "True"


def test_a_service_carries_traffic_from_pods_and_through_the_api_server(cluster: Cluster, pod: str) -> None:
    get = (
        "import urllib.request\n"
        "try: print(urllib.request.urlopen('http://site/', timeout=10).status)\n"
        "except OSError as e: print(e)"
    )
    # A pod's readiness is known a moment before every node's rules of its Service are written.
    wait_for("an answer through the Service", lambda: python(cluster, pod, get) == "200")
    assert "<html" in cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/services/site:80/proxy/").lower()


def test_an_indexed_job_of_restricted_pods_completes(cluster: Cluster, namespace: str) -> None:
    code = "import os; print('index', os.environ['JOB_COMPLETION_INDEX'])"
    template = {"spec": restricted(cluster.images["sink"], code)}
    spec = {"completionMode": "Indexed", "completions": 3, "parallelism": 2, "template": template}
    metadata = {"name": "indexed", "namespace": namespace}
    create(cluster, {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
    cluster.kubectl("wait", "job/indexed", "-n", namespace, "--for=condition=Complete", "--timeout=220s")
    logs = cluster.kubectl("logs", "-n", namespace, "-l", "job-name=indexed")
    assert sorted(logs.split("\n")) == ["", "index 0", "index 1", "index 2"]


def test_a_pod_over_its_memory_limit_is_killed(cluster: Cluster, namespace: str) -> None:
    limits = {"resources": {"limits": {"memory": "32Mi"}, "requests": {"memory": "16Mi"}}}
    spec = restricted(cluster.images["sink"], "b'x' * (1 << 28)", **limits)
    metadata = {"name": "greedy", "namespace": namespace}
    create(cluster, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    path = "jsonpath={.status.containerStatuses[0].state.terminated.reason}"
    reason = wait_for("its end", lambda: cluster.kubectl("get", "pod", "greedy", "-n", namespace, "-o", path))
    assert reason == "OOMKilled"


def test_a_pod_that_asks_for_more_than_restricted_is_refused(cluster: Cluster, namespace: str) -> None:
    spec = restricted(cluster.images["sink"], "pass")
    del spec["securityContext"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "loose", "namespace": namespace}, "spec": spec}
    said = cluster.kubectl("create", "-f", "-", stdin=json.dumps(pod), check=False)
    assert 'violates PodSecurity "restricted' in said
