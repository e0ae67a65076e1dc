"""The Jobs that the operator makes. Pure: values in, manifest out.

Job settings after https://kubernetes.io/docs/concepts/workloads/controllers/job/: an index is done only
when its sender says so with exit 0; whatever else ends a pod makes a new pod for the same index, and only
an exit that says "this can never work" gives the index up. Pods satisfy the `restricted` Pod Security
Standard and hold no service-account token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mailfleet_sender.contract import environment
from mailfleet_sender.contract.environment import Exit

from . import names
from .observation import PLANNER, PREFLIGHT, SENDER
from .resources import API_VERSION, KeyReference

if TYPE_CHECKING:
    from .observation import CampaignView, RelayView
    from .resources import CampaignSpec

SENDER_GRACE_SECONDS = 60
"""Time to finish what is in flight, record it and give the rest back."""
PLANNER_GRACE_SECONDS = 10
"""A planner has nothing to save: its pages are invisible until they are published."""
PLAN_JOB_TTL_SECONDS = 3_600
PREFLIGHT_GRACE_SECONDS = 2
PREFLIGHT_TTL_SECONDS = 7_200
"""The next one, an hour later, removes it: this is for relays that nobody looks after any more."""
FOR_EVER = 2_147_483_647
USER = 65_532
"""Neither root nor anybody: the sender's image runs as any user."""
CA_FOLDER = "/etc/mailfleet/ca"
CA_FILE = "ca.crt"
TRUST_FOLDER = "/etc/mailfleet/trust"
TRUST_KEY = "ca.crt"
"""Whom URLs of databases and Redis may trust by `sslrootcert` and `ssl_ca_certs`: a key of the sender Secret."""
METRICS_PORT = 9090
"""Of each sender's container, by the name `metrics`."""
LEDGER_KEY = "ledger-url"
REDIS_KEY = "redis-url"
DEFAULT_RESOURCES: dict[str, Any] = {
    "requests": {"cpu": "100m", "memory": "128Mi"},
    "limits": {"memory": "256Mi"},
}
"""Flat at any number of recipients; no CPU limit, since throttling lets permits go stale."""
PREFLIGHT_RESOURCES: dict[str, Any] = {
    "requests": {"cpu": "20m", "memory": "64Mi"},
    "limits": {"memory": "128Mi"},
}
"""One connection, for a second."""
VERBS = {PLANNER: "plan", SENDER: "send", PREFLIGHT: "preflight"}
ATTACHMENTS_MEMORY = "1Gi"
"""The limit with attachments: of the largest, 10 MiB, each mail under way is 14 MB, in two or three copies."""


@dataclass(frozen=True, slots=True)
class Image:
    """How children are run: the sender's image, and the Secret with the URLs of ledger and Redis.

    Attributes:
        url_networks: private networks from which planners may fetch a file of recipients, separated by commas.
    """

    name: str
    pull_policy: str
    secret: str
    url_networks: str = ""


def made_for_plan(campaign: CampaignView, secret: str) -> str:
    """What a plan Job depends on: the definition, the database that it is read from, the sender Secret's name."""
    spec, definition = _parts(campaign)
    return names.digest(definition.definition_hash(), *_database(spec), secret)


def made_for_send(campaign: CampaignView, relay: RelayView | None, secret: str) -> str:
    """What the pods of a send Job depend on that a running Job cannot be told: the Secrets they read."""
    spec, _ = _parts(campaign)
    ca = (relay.ca.name, relay.ca.key) if relay and relay.ca else None
    account = _named_account(relay) if relay else ()
    auth = relay.auth_secret if relay else None
    return names.digest(*_database(spec), auth, ca, secret, *account)


def _named_account(relay: RelayView) -> tuple[str, ...]:
    """An account that is not the relay's own: a sender keeps its limiter, so with another account it is replaced."""
    if relay.relay is None or relay.relay.account == f"{relay.namespace}/{relay.name}":
        return ()
    return (relay.relay.account,)


def made_for_preflight(relay: RelayView, secret: str) -> str:
    """What a preflight depends on: how the relay is reached, and the names of the Secrets for it; not its limits."""
    if (settings := relay.relay) is None:
        return ""
    ca = (relay.ca.name, relay.ca.key) if relay.ca else None
    where = (settings.host, settings.port, settings.tls.model_dump(mode="json"), settings.hello_name)
    return names.digest(*where, relay.auth_secret, ca, secret)


def plan_job(campaign: CampaignView, image: Image, *, run: int, attempt: int) -> dict[str, Any]:
    """The Job that cuts the audience into pages. One attempt: the operator decides when to try again."""
    made_for = made_for_plan(campaign, image.secret)
    container = _container(PLANNER, image, _plan_environment(campaign, image, run), _default_resources(campaign))
    pod = _pod(container, image, grace_seconds=PLANNER_GRACE_SECONDS)
    _mount_config_maps(campaign, pod, container)
    _mount_volume(campaign, pod, container)
    spec = {
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [_ignore_disruption()]},
        "ttlSecondsAfterFinished": PLAN_JOB_TTL_SECONDS,
    }
    return _job(
        campaign,
        name=names.plan_job(campaign.name, campaign.namespace, run, made_for, attempt),
        component=PLANNER,
        annotations={
            names.ANNOTATION_RUN: str(run),
            names.ANNOTATION_ATTEMPT: str(attempt),
            names.ANNOTATION_MADE_FOR: made_for,
        },
        job_spec=spec,
        pod_spec=pod,
    )


def send_job(
    campaign: CampaignView,
    relay: RelayView,
    image: Image,
    *,
    run: int,
    wave: int,
    ranges: int,
    parallelism: int,
    suspended: bool,
) -> dict[str, Any]:
    """The Indexed Job that sends a wave: index i is the range i of the wave."""
    spec, _ = _parts(campaign)
    made_for = made_for_send(campaign, relay, image.secret)
    variables = _send_environment(campaign, relay, image, run, wave)
    container = _container(SENDER, image, variables, spec.senders.resources or _default_resources(campaign))
    container["ports"] = [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}]
    pod = _pod(container, image, grace_seconds=SENDER_GRACE_SECONDS, campaign_spec=spec)
    _mount_ca(relay, pod, container)
    job_spec = {
        "completionMode": "Indexed",
        "completions": ranges,
        "parallelism": parallelism,
        "suspend": suspended,
        "backoffLimitPerIndex": FOR_EVER,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                _ignore_disruption(),
                _on_exit("FailIndex", "In"),
                _on_exit("Ignore", "NotIn"),
            ]
        },
        "ttlSecondsAfterFinished": spec.ttl_seconds_after_finished,
    }
    return _job(
        campaign,
        name=names.wave_job(campaign.name, campaign.namespace, run, wave),
        component=SENDER,
        annotations={names.ANNOTATION_RUN: str(run), names.ANNOTATION_MADE_FOR: made_for},
        wave=wave,
        job_spec=job_spec,
        pod_spec=pod,
    )


def preflight_job(relay: RelayView, image: Image, *, made_for: str, attempt: int, after: str) -> dict[str, Any]:
    """The Job that tries a relay. One attempt: the operator decides when to try again."""
    variables = [
        _secret(environment.LEDGER_URL, KeyReference(name=image.secret, key=LEDGER_KEY)),
        *_pod_name(),
        {"name": environment.PREFLIGHT_FOR, "value": made_for},
        *_relay_environment(relay),
    ]
    container = _container(PREFLIGHT, image, variables, PREFLIGHT_RESOURCES)
    pod = _pod(container, image, grace_seconds=PREFLIGHT_GRACE_SECONDS)
    _mount_ca(relay, pod, container)
    labels, quiet = names.relay_labels(relay.name), {names.ANNOTATION_ARGO: "true", names.ANNOTATION_RELAY: relay.name}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.preflight_job(relay.name, relay.namespace, made_for, attempt, after),
            "namespace": relay.namespace,
            "labels": labels,
            "annotations": {
                names.ANNOTATION_ATTEMPT: str(attempt),
                names.ANNOTATION_MADE_FOR: made_for,
                **quiet,
            },
            "ownerReferences": [_owner("EmailRelay", relay.name, relay.uid)],
        },
        "spec": {
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": [_ignore_disruption()]},
            "ttlSecondsAfterFinished": PREFLIGHT_TTL_SECONDS,
            "template": {"metadata": {"labels": labels, "annotations": quiet}, "spec": pod},
        },
    }


def _database(spec: CampaignSpec) -> tuple[str, str] | tuple[()]:
    return (spec.database.name, spec.database.key) if spec.database else ()


def _parts(campaign: CampaignView) -> tuple[CampaignSpec, Any]:
    if campaign.spec is None or campaign.definition is None:
        raise ValueError(f"the campaign cannot be read: {campaign.invalid}")
    return campaign.spec, campaign.definition


def _job(
    campaign: CampaignView,
    *,
    name: str,
    component: str,
    annotations: dict[str, str],
    job_spec: dict[str, Any],
    pod_spec: dict[str, Any],
    wave: int | None = None,
) -> dict[str, Any]:
    spec, _ = _parts(campaign)
    labels = names.labels(campaign.name, spec.run_id, component, wave)
    quiet = {names.ANNOTATION_ARGO: "true"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": campaign.namespace,
            "labels": labels,
            "annotations": {**annotations, **quiet},
            "ownerReferences": [_owner("EmailCampaign", campaign.name, campaign.uid)],
        },
        "spec": {**job_spec, "template": {"metadata": {"labels": labels, "annotations": quiet}, "spec": pod_spec}},
    }


def _owner(kind: str, name: str, uid: str) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        # True would let a foreground deletion of the owner wait for its pods.
        "blockOwnerDeletion": False,
    }


def _pod(
    container: dict[str, Any], image: Image, *, grace_seconds: int, campaign_spec: CampaignSpec | None = None
) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}, _trust(image)],
    }
    if campaign_spec:
        senders = campaign_spec.senders
        placement = {
            "nodeSelector": senders.node_selector,
            "tolerations": list(senders.tolerations) if senders.tolerations else None,
            "priorityClassName": senders.priority_class_name,
        }
        pod.update({field: value for field, value in placement.items() if value})
    return pod


def _container(name: str, image: Image, variables: list[dict[str, Any]], resources: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "image": image.name,
        "imagePullPolicy": image.pull_policy,
        "args": [VERBS[name]],
        "env": variables,
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # File, never the log: log lines are not meant for a status that everybody may read.
        "terminationMessagePath": environment.TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a private emptyDir
            {"name": "trust", "mountPath": TRUST_FOLDER, "readOnly": True},
        ],
    }


def _trust(image: Image) -> dict[str, Any]:
    """The private authority of databases and Redis; empty where the Secret has none."""
    items = [{"key": TRUST_KEY, "path": TRUST_KEY}]
    return {"name": "trust", "secret": {"secretName": image.secret, "items": items, "optional": True}}


def _default_resources(campaign: CampaignView) -> dict[str, Any]:
    _, definition = _parts(campaign)
    if not definition.message.attachments:
        return DEFAULT_RESOURCES
    return {**DEFAULT_RESOURCES, "limits": {"memory": ATTACHMENTS_MEMORY}}


def _mount_config_maps(campaign: CampaignView, pod: dict[str, Any], container: dict[str, Any]) -> None:
    """What the campaign takes from ConfigMaps, as files. Optional: the planner says in words what is missing."""
    _, definition = _parts(campaign)
    for n, (name, keys) in enumerate(definition.config_maps().items()):
        items = [{"key": key, "path": key} for key in keys]
        pod["volumes"].append({"name": f"config-{n}", "configMap": {"name": name, "items": items, "optional": True}})
        path = f"{environment.CONFIG_MAPS}/{name}"
        container["volumeMounts"].append({"name": f"config-{n}", "mountPath": path, "readOnly": True})


def _mount_volume(campaign: CampaignView, pod: dict[str, Any], container: dict[str, Any]) -> None:
    """The volume that holds the recipients' file, for reading."""
    _, definition = _parts(campaign)
    csv = definition.recipients.csv
    if csv is None or csv.persistent_volume_claim is None:
        return
    claim = {"claimName": csv.persistent_volume_claim.claim_name, "readOnly": True}
    pod["volumes"].append({"name": "recipients", "persistentVolumeClaim": claim})
    container["volumeMounts"].append({"name": "recipients", "mountPath": environment.VOLUME, "readOnly": True})


def _environment(campaign: CampaignView, image: Image, run: int) -> list[dict[str, Any]]:
    """What planners and senders are told."""
    spec, _ = _parts(campaign)
    database = [_secret(environment.DATABASE_URL, spec.database)] if spec.database else []
    return [
        _secret(environment.LEDGER_URL, KeyReference(name=image.secret, key=LEDGER_KEY)),
        *database,
        {"name": environment.RUN, "value": str(run)},
        *_pod_name(),
    ]


def _plan_environment(campaign: CampaignView, image: Image, run: int) -> list[dict[str, Any]]:
    _, definition = _parts(campaign)
    variables = _environment(campaign, image, run)
    if definition.recipients.csv and definition.recipients.csv.url and image.url_networks:
        variables.append({"name": environment.URL_NETWORKS, "value": image.url_networks})
    return variables


def _send_environment(
    campaign: CampaignView, relay: RelayView, image: Image, run: int, wave: int
) -> list[dict[str, Any]]:
    return [
        *_environment(campaign, image, run),
        _secret(environment.REDIS_URL, KeyReference(name=image.secret, key=REDIS_KEY)),
        {"name": environment.WAVE, "value": str(wave)},
        {"name": environment.GRACE_SECONDS, "value": str(SENDER_GRACE_SECONDS)},
        *_relay_environment(relay),
        {"name": environment.METRICS_PORT, "value": str(METRICS_PORT)},
    ]


def _pod_name() -> list[dict[str, Any]]:
    return [{"name": environment.POD_NAME, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]


def _relay_environment(relay: RelayView) -> list[dict[str, Any]]:
    """Which relay, and the Secrets for it."""
    variables: list[dict[str, Any]] = [{"name": environment.RELAY, "value": f"{relay.namespace}/{relay.name}"}]
    if relay.auth_secret:
        for variable, key in ((environment.SMTP_USERNAME, "username"), (environment.SMTP_PASSWORD, "password")):
            variables.append(_secret(variable, KeyReference(name=relay.auth_secret, key=key)))
    if relay.ca:
        variables.append({"name": environment.SMTP_CA_FILE, "value": f"{CA_FOLDER}/{CA_FILE}"})
    return variables


def _mount_ca(relay: RelayView, pod: dict[str, Any], container: dict[str, Any]) -> None:
    if relay.ca:
        container["volumeMounts"].append({"name": "ca", "mountPath": CA_FOLDER, "readOnly": True})
        items = [{"key": relay.ca.key, "path": CA_FILE}]
        pod["volumes"].append({"name": "ca", "secret": {"secretName": relay.ca.name, "items": items}})


def _secret(variable: str, reference: KeyReference) -> dict[str, Any]:
    source = {"name": reference.name, "key": reference.key}
    return {"name": variable, "valueFrom": {"secretKeyRef": source}}


def _ignore_disruption() -> dict[str, Any]:
    """A pod that was evicted, preempted or drained away did nothing wrong."""
    return {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def _on_exit(action: str, operator: str) -> dict[str, Any]:
    """What an exit of the sender means: EX_CONFIG can never work, all else may."""
    codes = {"containerName": SENDER, "operator": operator, "values": [int(Exit.IMPOSSIBLE)]}
    return {"action": action, "onExitCodes": codes}
