"""The operator's hand on Kubernetes: the few writes that it makes, each one request with a time limit.

Reading comes from kopf's watches alone. The `kubernetes` package brings configuration, TLS and tokens; bodies
go out as the plain JSON that `manifests` builds. Used from threads: its connection pool is safe for them.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import kubernetes.config
import urllib3.exceptions
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException

from .conditions import time_text
from .errors import ClusterError, ObjectConflictError, ObjectGoneError
from .resources import API_VERSION, GROUP, VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .events import Told

JSON = "application/json"
MERGE = "application/merge-patch+json"
REQUEST_SECONDS = 15
CAMPAIGNS, RELAYS = "emailcampaigns", "emailrelays"
KIND = "EmailCampaign"


class Cluster:
    """Writes. Each method raises ClusterError, or ObjectGoneError and ObjectConflictError where they may pass."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    @classmethod
    def connect(cls, workers: int) -> Cluster:
        """With the service account of the pod, else with KUBECONFIG; a connection for each worker."""
        configuration = Configuration()
        try:
            kubernetes.config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except kubernetes.config.ConfigException:
            kubernetes.config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        configuration.connection_pool_maxsize = workers
        return cls(ApiClient(configuration))

    def create_job(self, manifest: Mapping[str, Any]) -> bool:
        """Make a Job. False: one of that name is there already."""
        namespace = manifest["metadata"]["namespace"]
        try:
            self._request("POST", f"/apis/batch/v1/namespaces/{namespace}/jobs", manifest)
        except ObjectConflictError:
            return False
        return True

    def patch_job(self, namespace: str, name: str, uid: str, spec: Mapping[str, Any]) -> None:
        """Change fields of a Job's spec; the uid guards against another Job of that name."""
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}"
        self._request("PATCH", path, {"metadata": {"uid": uid}, "spec": spec}, content_type=MERGE)

    def delete_job(self, namespace: str, name: str, uid: str) -> None:
        """Delete a Job and, in the background, its pods. Gone already is as good."""
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}"
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            self._request("DELETE", path, options)
        except (ObjectGoneError, ObjectConflictError):
            return

    def fail_pod(self, namespace: str, name: str, uid: str, message: str) -> None:
        """Declare a pod of a lost node failed."""
        status = {"phase": "Failed", "reason": "NodeLost", "message": message}
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/status"
        self._request("PATCH", path, {"metadata": {"uid": uid}, "status": status}, content_type=MERGE)

    def patch_status(self, plural: str, namespace: str, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Write the status of one of our resources.

        Returns:
            the object as it is then.
        """
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{plural}/{name}/status"
        return self._request("PATCH", path, patch, content_type=MERGE)

    def tell(self, namespace: str, name: str, uid: str, told: Told) -> None:
        """Write an Event about a campaign, or how often it has come (core/v1; Kubernetes removes it after an hour)."""
        path = f"/api/v1/namespaces/{namespace}/events"
        if told.count > 1:
            changed = {
                "message": told.event.message,
                "lastTimestamp": time_text(told.written),
                "count": told.count,
            }
            with suppress(ObjectGoneError):
                self._request("PATCH", f"{path}/{told.name}", changed, content_type=MERGE)
                return
        about = {"apiVersion": API_VERSION, "kind": KIND, "namespace": namespace, "name": name, "uid": uid}
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": told.name, "namespace": namespace},
            "involvedObject": about,
            "type": told.event.kind,
            "reason": told.event.reason,
            "message": told.event.message,
            "source": {"component": "mailfleet-operator"},
            "firstTimestamp": time_text(told.first),
            "lastTimestamp": time_text(told.written),
            "count": told.count,
        }
        self._request("POST", path, body)

    def _request(self, method: str, path: str, body: Mapping[str, Any], *, content_type: str = JSON) -> dict[str, Any]:
        request = self._client.param_serialize(
            method,
            path,
            header_params={"Content-Type": content_type, "Accept": JSON},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = self._client.call_api(*request, _request_timeout=REQUEST_SECONDS)
            response.read()  # type: ignore[no-untyped-call]
        except ApiException as error:
            raise ClusterError(error.status or 0, str(error.reason)) from error
        except urllib3.exceptions.HTTPError as error:
            raise ClusterError(0, f"the API server does not answer: {type(error).__name__}") from error
        answer: dict[str, Any] = json.loads(response.data or b"{}")
        if 200 <= response.status < 300:
            return answer
        message = str(answer.get("message", response.reason))
        if response.status == 404:
            raise ObjectGoneError(404, message)
        if response.status == 409:
            raise ObjectConflictError(409, message)
        raise ClusterError(response.status, message)
