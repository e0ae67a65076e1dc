"""The control plane that the API tests stand on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from services import wait_for

if TYPE_CHECKING:
    from kube import ControlPlane

JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: indexed, namespace: default}
spec:
  completionMode: Indexed
  completions: 3
  parallelism: 2
  template:
    spec:
      restartPolicy: Never
      containers: [{name: main, image: "example:1"}]
"""


def test_is_the_release_that_it_says(control_plane: ControlPlane) -> None:
    version = json.loads(control_plane.kubectl("version", "-o", "json"))
    assert version["serverVersion"]["gitVersion"] == "v1.35.4"
    assert version["serverVersion"]["minor"] == "35"


def test_the_job_controller_makes_the_pods_of_an_indexed_job(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "-f", "-", stdin=JOB)
    path = "jsonpath={.items[*].metadata.annotations.batch\\.kubernetes\\.io/job-completion-index}"
    pods = wait_for(
        "two pods of the Job",
        lambda: (
            indexes
            if len(indexes := control_plane.kubectl("get", "pods", "-l", "job-name=indexed", "-o", path).split()) == 2
            else None
        ),
    )
    assert set(pods) == {"0", "1"}
    control_plane.kubectl("delete", "job", "indexed")
