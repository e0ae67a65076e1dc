"""Kubernetes objects as the rules see them. Pure: manifests in, frozen values out.

Manifests come from the API server's watch, so their shape is given; a field that is absent is None or empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from mailfleet_sender.contract.campaign import Campaign

from . import names
from .conditions import parse_time
from .observation import CampaignView, JobView, PodView, Refusal, RelayView, Status
from .resources import CampaignSpec, RelaySpec

Manifest = Mapping[str, Any]
FAILED_CREATE = "FailedCreate"
FAILED_MOUNT = "FailedMount"


def campaign(body: Manifest) -> CampaignView:
    """An EmailCampaign; a spec that cannot be read gives a view that says why."""
    meta = body["metadata"]
    spec, definition, invalid = None, None, None
    try:
        spec = CampaignSpec.model_validate(body.get("spec") or {})
        definition = Campaign.model_validate(body.get("spec") or {})
    except ValidationError as error:
        spec, invalid = None, _first(error)
    return CampaignView(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        generation=int(meta.get("generation", 1)),
        resource_version=meta["resourceVersion"],
        spec=spec,
        definition=definition,
        invalid=invalid,
        status=Status(body.get("status") or {}),
        deleting="deletionTimestamp" in meta,
    )


def relay(body: Manifest) -> RelayView:
    """An EmailRelay."""
    meta = body["metadata"]
    spec, invalid = None, None
    try:
        spec = RelaySpec.model_validate(body.get("spec") or {})
    except ValidationError as error:
        invalid = _first(error)
    return RelayView(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        generation=int(meta.get("generation", 1)),
        resource_version=meta["resourceVersion"],
        relay=spec.contract(meta["namespace"], meta["name"]) if spec else None,
        invalid=invalid,
        auth_secret=spec.auth.secret_ref.name if spec and spec.auth else None,
        ca=spec.tls.ca_secret_ref if spec else None,
        status=body.get("status") or {},
    )


def job(body: Manifest) -> JobView:
    """One of our Jobs."""
    meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or () if c.get("status") == "True"}
    failed, complete = conditions.get("Failed"), conditions.get("Complete")
    containers = ((spec.get("template") or {}).get("spec") or {}).get("containers") or [{}]
    wave = labels.get(names.LABEL_WAVE)
    end = failed or complete or {}
    return JobView(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        owner_uid=next((o["uid"] for o in meta.get("ownerReferences") or () if o.get("controller")), None),
        component=labels.get(names.LABEL_COMPONENT, ""),
        run=int(annotations.get(names.ANNOTATION_RUN, 0)),
        wave=int(wave) if wave is not None else None,
        attempt=int(annotations.get(names.ANNOTATION_ATTEMPT, 1)),
        made_for=annotations.get(names.ANNOTATION_MADE_FOR, ""),
        image=containers[0].get("image", ""),
        parallelism=int(spec.get("parallelism", 1)),
        suspended=bool(spec.get("suspend")),
        active=int(status.get("active") or 0),
        ready=int(status.get("ready") or 0),
        succeeded=int(status.get("succeeded") or 0),
        failed=int(status.get("failed") or 0),
        complete=complete is not None,
        failed_reason=str(failed.get("reason", "Failed")) if failed else None,
        failed_message=str(failed.get("message", "")) if failed else "",
        ended_at=parse_time(end.get("lastTransitionTime")),
        deleting="deletionTimestamp" in meta,
        created_at=parse_time(meta.get("creationTimestamp")),
    )


def pod(body: Manifest) -> PodView:
    """A pod of one of our Jobs."""
    meta, status = body["metadata"], body.get("status") or {}
    labels = meta.get("labels") or {}
    container: Manifest = next(iter(status.get("containerStatuses") or ()), {})
    state = container.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    refused = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    return PodView(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        job=labels.get("batch.kubernetes.io/job-name", ""),
        job_uid=labels.get("batch.kubernetes.io/controller-uid"),
        component=labels.get(names.LABEL_COMPONENT, ""),
        phase=status.get("phase", "Pending"),
        node=(body.get("spec") or {}).get("nodeName"),
        deletion_deadline=parse_time(meta.get("deletionTimestamp")),
        ready=conditions.get("Ready", {}).get("status") == "True",
        waiting_reason=waiting.get("reason"),
        waiting_message=waiting.get("message", ""),
        unschedulable=scheduled.get("message", "") if refused else None,
        exit_code=ended.get("exitCode"),
        exit_reason=ended.get("reason"),
        last_words=ended.get("message", ""),
        finished_at=parse_time(ended.get("finishedAt")),
    )


def node_ready(body: Manifest) -> bool:
    """Whether its kubelet reports."""
    conditions = (body.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def refusal(body: Manifest) -> Refusal | None:
    """An Event that tells why a pod was not made or does not start; None for all others."""
    about = body.get("involvedObject") or {}
    if (body.get("reason"), about.get("kind")) not in {(FAILED_CREATE, "Job"), (FAILED_MOUNT, "Pod")}:
        return None
    at = next(
        (t for field in ("lastTimestamp", "eventTime", "firstTimestamp") if (t := parse_time(body.get(field)))),
        parse_time(body["metadata"].get("creationTimestamp")),
    )
    if at is None:
        return None
    return Refusal(about.get("namespace", ""), about.get("name", ""), body.get("message", ""), at)


def owner_campaign(body: Manifest) -> tuple[str, str] | None:
    """Namespace and name of the campaign that a child belongs to."""
    meta = body["metadata"]
    name = (meta.get("labels") or {}).get(names.LABEL_CAMPAIGN)
    return (meta["namespace"], name) if name else None


def owner_relay(body: Manifest) -> tuple[str, str] | None:
    """Namespace and name of the relay that a preflight belongs to."""
    meta = body["metadata"]
    name = (meta.get("annotations") or {}).get(names.ANNOTATION_RELAY)
    return (meta["namespace"], name) if name else None


def _first(error: ValidationError) -> str:
    found = error.errors()[0]
    return f"spec.{'.'.join(map(str, found['loc']))}: {found['msg']}"
