"""The charts, rendered by Helm and judged by a real API server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from custom_resources import CHARTS, ROOT
from kube import ControlPlane
from mailfleet_cluster.binaries import HELM_4, HELM_CLIENT, KUBECONFORM, KUBERNETES
from mailfleet_operator import manifests as manifests_of
from mailfleet_operator import names
from mailfleet_release import schemas

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mailfleet_cluster.binaries import Program

SYSTEM = "mailfleet-system"
SECURITY = ROOT / "docs/security.md"
URLS = ("--set=ledger.url=postgresql://u:p@db/mailfleet", "--set=redis.url=redis://redis:6379/0")
LISTED = ("--set=clusterWide=false", "--set=campaignNamespaces={shop-a,shop-b}")
EXTRA = [
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-one"}},
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}-two}\n",
]
DEMO = f"--values={ROOT / 'deploy/demo/values.yaml'}"
ACCOUNT = f"--as=system:serviceaccount:{SYSTEM}:mailfleet-operator"

# What the operator may do, and nothing else: resource -> verbs.
RIGHTS = {
    "mailfleet.dev/emailcampaigns": {"list", "watch"},
    "mailfleet.dev/emailrelays": {"list", "watch"},
    "mailfleet.dev/emailcampaigns/status": {"patch"},
    "mailfleet.dev/emailrelays/status": {"patch"},
    "batch/jobs": {"list", "watch", "create", "patch", "delete"},
    "/pods": {"list", "watch"},
    "/pods/status": {"patch"},
    "/events": {"list", "watch", "create", "patch"},
    "/namespaces": {"list", "watch"},
    "/nodes": {"list", "watch"},
    "apiextensions.k8s.io/customresourcedefinitions": {"list", "watch"},
}
UNBOUND = {"/namespaces", "/nodes", "apiextensions.k8s.io/customresourcedefinitions"}
"""Of these, what has no namespace."""
OTHERS_ACCOUNT = ("--set=serviceAccount.create=false", "--set=serviceAccount.name=mail")


CLIENTS = (HELM_CLIENT, HELM_4)
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\nAAAA==\n-----END CERTIFICATE-----\n"
COMBINATIONS = {
    "usual": URLS,
    "campaigns": (*URLS, "--set=campaignNamespaces={shop-a,shop-b}"),
    "demo": (DEMO,),
    "existing secret": ("--set=existingSecret=mine", "--set=campaignNamespaces={shop-a}"),
    "listed namespaces": (*URLS, *LISTED),
    "private authority": (*URLS, *LISTED, f"--set-string=caCertificates={PEM}"),
    "network policies": (*URLS, *LISTED, "--set=networkPolicy.enabled=true"),
    "others' account": (*URLS, *OTHERS_ACCOUNT, "--set=rbac.create=false"),
    "definitions by others": (*URLS, "--set=crds.enabled=false", "--set=rbac.aggregateClusterRoles=false"),
    "sentinel": (URLS[0], "--set=redis.url=rediss+sentinel://:p@s-1:26379/main/0"),
    "cluster": (URLS[0], "--set=redis.url=rediss+cluster://:p@r-1:6379"),
    "all of the pod": (
        *URLS,
        "--set=imagePullSecrets[0].name=a",
        "--set=imagePullSecrets[1].name=b",
        "--set=operator.nodeSelector.disk=ssd",
        "--set=operator.tolerations[0].operator=Exists",
        "--set=operator.priorityClassName=system-cluster-critical",
        "--set=operator.podAnnotations.a=b",
        "--set=operator.podLabels.team=crm",
        "--set=operator.logLevel=DEBUG",
        '--set-json=operator.affinity={"podAntiAffinity": {}}',
        "--set=serviceAccount.name=mail",
        "--set=serviceAccount.annotations.a=b",
        "--set=crds.keep=false",
        "--set=maxSenders=7",
        "--set=requireStartTime=true",
        "--set=sharedAccounts={company}",
        f"--set-json=extraObjects={json.dumps(EXTRA)}",
    ),
}
"""Values that people set together; each is judged by every schema, and by the API server."""


def helm(*args: str, kubeconfig: Path | None = None, client: Program = HELM_CLIENT) -> subprocess.CompletedProcess[str]:
    """Run Helm; without a kubeconfig it reaches no cluster."""
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig or "/dev/null")}
    return subprocess.run(
        [client.built(), *args], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def render(chart: str, *args: str, namespace: str = SYSTEM) -> list[dict[str, Any]]:
    """The chart's manifests."""
    command = ("template", chart, str(CHARTS[chart]), f"--namespace={namespace}", f"--kube-version={KUBERNETES}", *args)
    done = helm(*command)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def refused(*args: str) -> str:
    done = helm("template", "mailfleet", str(CHARTS["mailfleet"]), f"--kube-version={KUBERNETES}", *args)
    assert done.returncode != 0
    return done.stderr


def conform(folder: Path, manifests: str) -> None:
    """Have kubeconform judge them by the schemas of one Kubernetes version."""
    where = f"-schema-location={folder}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    done = subprocess.run(
        [KUBECONFORM.built(), "-strict", where], input=manifests, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def one(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def granted_by(role: dict[str, Any]) -> dict[str, set[str]]:
    """The verbs by resource."""
    granted: dict[str, set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                granted.setdefault(f"{group}/{resource}", set()).update(rule["verbs"])
    return granted


@pytest.fixture(scope="module")
def schema_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The schemas of each supported Kubernetes version."""
    folders = {}
    for release in schemas.RELEASES:
        folders[release] = tmp_path_factory.mktemp(release)
        schemas.write(release, folders[release])
    return folders


@pytest.fixture(scope="module")
def system(api: ControlPlane) -> ControlPlane:
    """The API server with the namespaces that the charts are put into, each with restricted Pod Security."""
    for name in (SYSTEM, "mailfleet-demo", "shop-a", "shop-b"):
        api.kubectl("create", "namespace", name)
        api.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    return api


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server of its own, on which nobody has put the definitions."""
    with ControlPlane(tmp_path_factory.mktemp("empty")) as plane:
        plane.kubectl("create", "namespace", SYSTEM)
        yield plane


@pytest.mark.parametrize(
    ("chart", "values"), [("mailfleet", URLS), ("mailfleet", ()), ("mailfleet", (DEMO,)), ("demo", ())], ids=str
)
def test_chart_passes_helms_strict_lint(chart: str, values: tuple[str, ...]) -> None:
    for client in CLIENTS:
        done = helm("lint", "--strict", str(CHARTS[chart]), *values, client=client)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_kubeconform_accepts_all_of_the_chart_in_every_supported_version(
    values: tuple[str, ...], schema_folders: dict[str, Path]
) -> None:
    for client in CLIENTS:
        command = ("template", "mailfleet", str(CHARTS["mailfleet"]), f"--namespace={SYSTEM}", *values)
        done = helm(*command, f"--kube-version={KUBERNETES}", client=client)
        assert done.returncode == 0, done.stderr
        for folder in schema_folders.values():
            conform(folder, done.stdout)


def test_kubeconform_knows_wrong_from_right(schema_folders: dict[str, Path]) -> None:
    manifests = yaml.safe_dump_all(render("mailfleet", *URLS))
    for right, wrong in (("replicas: 1", "replicas: one"), ("  strategy:", "  stratagem:"), ("rules:", "rule:")):
        assert right in manifests
        for folder in schema_folders.values():
            with pytest.raises(AssertionError):
                conform(folder, manifests.replace(right, wrong))


def test_older_kubernetes_is_refused() -> None:
    command = ("template", "mailfleet", str(CHARTS["mailfleet"]), *URLS)
    for client in CLIENTS:
        assert helm(*command, "--kube-version=1.33.0", client=client).returncode == 0
        assert "chart requires kubeVersion" in helm(*command, "--kube-version=1.32.9", client=client).stderr


@pytest.mark.parametrize(
    ("chart", "namespace", "values"),
    [
        *(("mailfleet", SYSTEM, values) for name, values in COMBINATIONS.items() if name != "demo"),
        ("mailfleet", "mailfleet-demo", (DEMO,)),
        ("demo", "mailfleet-demo", ()),
    ],
    ids=[*(name for name in COMBINATIONS if name != "demo"), "demo", "the demo's services"],
)
def test_api_server_accepts_all_of_the_chart(
    system: ControlPlane, chart: str, namespace: str, values: tuple[str, ...]
) -> None:
    manifests = render(chart, *values, namespace=namespace)
    # --warnings-as-errors: Pod Security warns of a Deployment whose pods would be refused.
    command = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-")
    told = system.kubectl(*command, "--warnings-as-errors", stdin=yaml.safe_dump_all(manifests))
    assert told.count("serverside-applied") == len(manifests)


def test_packaged_chart_renders_the_same(tmp_path: Path) -> None:
    for client in CLIENTS:
        assert helm("package", str(CHARTS["mailfleet"]), f"--destination={tmp_path}", client=client).returncode == 0
        (archive,) = tmp_path.glob("mailfleet-*.tgz")
        command = (f"--namespace={SYSTEM}", f"--kube-version={KUBERNETES}", *URLS)
        packed = helm("template", "mailfleet", str(archive), *command, client=client)
        assert packed.stdout == helm("template", "mailfleet", str(CHARTS["mailfleet"]), *command, client=client).stdout
        assert packed.returncode == 0


def test_ledger_and_redis_must_be_told() -> None:
    assert "ledger.url is required (postgresql://user:password@host:5432/database), or existingSecret" in refused()
    assert "redis.url is required (redis://host:6379/0), or existingSecret" in refused(URLS[0])


def test_secret_and_urls_contradict_each_other() -> None:
    assert "leave ledger.url, redis.url and caCertificates empty" in refused("--set=existingSecret=x", URLS[0])


def test_unknown_value_is_refused() -> None:
    assert "'ledgerUrl' not allowed" in refused("--set=ledgerUrl=x")


def test_each_campaign_namespace_gets_its_secret() -> None:
    manifests = render("mailfleet", *URLS, "--set=campaignNamespaces={shop-a,shop-b}", "--set=senderSecretName=fleet")
    secrets = {(m["metadata"]["namespace"], m["metadata"]["name"]): m for m in manifests if m["kind"] == "Secret"}
    assert set(secrets) == {(SYSTEM, "mailfleet-operator"), ("shop-a", "fleet"), ("shop-b", "fleet")}
    for secret in secrets.values():
        assert secret["stringData"] == {
            "ledger-url": "postgresql://u:p@db/mailfleet",
            "redis-url": "redis://redis:6379/0",
        }


def test_existing_secret_makes_none() -> None:
    manifests = render("mailfleet", "--set=existingSecret=mine", "--set=campaignNamespaces={shop-a}")
    assert [m for m in manifests if m["kind"] == "Secret"] == []
    pod = one(manifests, "Deployment")["spec"]["template"]["spec"]
    sources = [env["valueFrom"]["secretKeyRef"] for env in pod["containers"][0]["env"] if "valueFrom" in env]
    assert sources == [{"name": "mine", "key": "ledger-url"}, {"name": "mine", "key": "redis-url"}]


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ((), "mailfleet/sender:0.1.0"),
        (("--set=sender.image.tag=1.2",), "mailfleet/sender:1.2"),
        (("--set=sender.image.registry=r.example.com/x/",), "r.example.com/x/mailfleet/sender:0.1.0"),
        (
            (f"--set=sender.image.digest=sha256:{'a' * 64}", "--set=sender.image.tag=1.2"),
            f"mailfleet/sender@sha256:{'a' * 64}",
        ),
    ],
    ids=["default", "tag", "registry", "digest"],
)
def test_image_is_named_in_the_usual_parts(values: tuple[str, ...], image: str) -> None:
    pod = one(render("mailfleet", *URLS, *values), "Deployment")["spec"]["template"]["spec"]
    assert pod["initContainers"][0]["image"] == image
    told = {env["name"]: env.get("value") for env in pod["containers"][0]["env"]}
    assert told["MAILFLEET_SENDER_IMAGE"] == image  # senders are of the version that migrated


def test_operator_is_one_restricted_pod_that_migrates_first() -> None:
    spec = one(render("mailfleet", *URLS), "Deployment")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}
    pod = spec["template"]["spec"]
    (migrate,), (operator,) = pod["initContainers"], pod["containers"]
    assert migrate["args"] == ["migrate"]
    assert operator["livenessProbe"]["httpGet"]["path"] == "/healthz"
    for container in (migrate, operator):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["resources"]["limits"]["memory"]
    assert {env["name"] for env in operator["env"]} == {
        "MAILFLEET_LEDGER_URL",
        "MAILFLEET_METRICS_PORT",
        "MAILFLEET_REDIS_URL",
        "MAILFLEET_SENDER_IMAGE",
        "MAILFLEET_SENDER_SECRET",
        "MAILFLEET_SENDER_PULL_POLICY",
        "MAILFLEET_RETENTION_MONTHS",
        "MAILFLEET_MAX_SENDERS",
        "MAILFLEET_REQUIRE_START_TIME",
        "MAILFLEET_LOG_LEVEL",
    }


def variables(*values: str) -> dict[str, str | None]:
    """What the operator's container is told."""
    containers = one(render("mailfleet", *URLS, *values), "Deployment")["spec"]["template"]["spec"]["containers"]
    return {env["name"]: env.get("value") for env in containers[0]["env"]}


@pytest.mark.parametrize(
    ("value", "variable", "usual"),
    [
        ("ledger.retentionMonths=3", "MAILFLEET_RETENTION_MONTHS", "12"),
        ("maxSenders=7", "MAILFLEET_MAX_SENDERS", "1000"),
        ("requireStartTime=true", "MAILFLEET_REQUIRE_START_TIME", "false"),
        ("operator.logLevel=DEBUG", "MAILFLEET_LOG_LEVEL", "INFO"),
        ("sender.image.pullPolicy=Never", "MAILFLEET_SENDER_PULL_POLICY", "IfNotPresent"),
        ("senderSecretName=fleet", "MAILFLEET_SENDER_SECRET", "mailfleet"),
    ],
)
def test_what_the_installation_sets_reaches_the_operator(value: str, variable: str, usual: str) -> None:
    assert variables()[variable] == usual
    assert variables(f"--set={value}")[variable] == value.partition("=")[2]


def test_operator_of_listed_namespaces_has_rights_in_no_other() -> None:
    manifests = render("mailfleet", *URLS, *LISTED)
    assert variables(*LISTED)["MAILFLEET_NAMESPACES"] == "shop-a,shop-b"
    assert "MAILFLEET_NAMESPACES" not in variables()
    roles = [m for m in manifests if m["kind"] == "Role"]
    assert [m["metadata"]["namespace"] for m in roles] == ["shop-a", "shop-b"]
    (wide,) = [m for m in manifests if m["kind"] == "ClusterRole" and m["metadata"]["name"].endswith("-operator")]
    assert granted_by(wide) == {r: RIGHTS[r] for r in UNBOUND}
    for role in roles:
        assert granted_by(role) == {r: v for r, v in RIGHTS.items() if r not in UNBOUND}
    assert "name the namespaces" in refused(*URLS, "--set=clusterWide=false")


def test_account_and_rights_may_be_made_by_others() -> None:
    kinds = {m["kind"] for m in render("mailfleet", *URLS, "--set=rbac.create=false", *OTHERS_ACCOUNT)}
    assert not kinds & {"ServiceAccount", "Role", "ClusterRoleBinding"}
    assert "serviceAccount.name is required" in refused(*URLS, OTHERS_ACCOUNT[0])
    pod = one(render("mailfleet", *URLS, *OTHERS_ACCOUNT), "Deployment")["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "mail"
    (subject,) = one(render("mailfleet", *URLS, *OTHERS_ACCOUNT), "ClusterRoleBinding")["subjects"]
    assert subject["name"] == "mail"


def test_further_objects_are_templates() -> None:
    found = render("mailfleet", *URLS, f"--set-json=extraObjects={json.dumps(EXTRA)}")
    assert {m["metadata"]["name"] for m in found if m["kind"] == "ConfigMap"} == {"mailfleet-one", "mailfleet-two"}


def test_network_policies_name_the_pods_that_are_made() -> None:
    manifests = render("mailfleet", *URLS, *LISTED, "--set=networkPolicy.enabled=true")
    policies = [m for m in manifests if m["kind"] == "NetworkPolicy"]
    assert [m["metadata"]["namespace"] for m in policies] == [SYSTEM, "shop-a", "shop-b"]
    labels = {"app.kubernetes.io/name": "mailfleet", names.LABEL_MANAGED_BY: names.MANAGER}
    for policy in policies[1:]:
        assert policy["spec"]["podSelector"] == {"matchLabels": labels}
        assert policy["spec"]["ingress"] == []
    assert "NetworkPolicy" not in {m["kind"] for m in render("mailfleet", *URLS)}


def test_helm_test_asks_with_the_operators_urls() -> None:
    (pod,) = [m for m in render("mailfleet", *URLS) if m["kind"] == "Pod"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (container,) = pod["spec"]["containers"]
    assert container["args"] == ["check"]
    assert [env["name"] for env in container["env"]] == ["MAILFLEET_LEDGER_URL", "MAILFLEET_REDIS_URL"]


def test_a_private_authority_is_in_every_secret_and_every_pod() -> None:
    manifests = render("mailfleet", *URLS, "--set=campaignNamespaces={shop-a}", f"--set-string=caCertificates={PEM}")
    assert [m["stringData"]["ca.crt"] for m in manifests if m["kind"] == "Secret"] == [PEM, PEM]
    for values, secret in ((URLS, "mailfleet-operator"), (("--set=existingSecret=mine",), "mine")):
        made = render("mailfleet", *values)
        assert not [m for m in made if "ca.crt" in m.get("stringData", {})]
        (check,) = [m["spec"] for m in made if m["kind"] == "Pod"]
        pod = one(made, "Deployment")["spec"]["template"]["spec"]
        for spec in (check, pod):
            (volume,) = [v for v in spec["volumes"] if v["name"] == "trust"]
            assert volume["secret"] == {
                "secretName": secret,
                "optional": True,
                "items": [{"key": manifests_of.TRUST_KEY, "path": manifests_of.TRUST_KEY}],
            }
            for container in (*spec.get("initContainers", ()), *spec["containers"]):
                (mount,) = [m for m in container["volumeMounts"] if m["name"] == "trust"]
                assert mount == {"name": "trust", "mountPath": manifests_of.TRUST_FOLDER, "readOnly": True}
    assert "leave ledger.url, redis.url and caCertificates empty" in refused(
        "--set=existingSecret=mine", f"--set-string=caCertificates={PEM}"
    )
    assert "caCertificates" in refused(*URLS, "--set=caCertificates=/etc/ca.pem")


def test_shared_accounts_reach_the_operator() -> None:
    containers = one(render("mailfleet", *URLS, "--set=sharedAccounts={a,b-c}"), "Deployment")["spec"]["template"][
        "spec"
    ]
    told = {env["name"]: env.get("value") for env in containers["containers"][0]["env"]}
    assert told["MAILFLEET_SHARED_ACCOUNTS"] == "a,b-c"


def test_networks_for_files_of_recipients_reach_the_operator() -> None:
    containers = one(
        render("mailfleet", *URLS, "--set=recipients.allowedNetworks={10.0.0.0/8,fd00::/8}"), "Deployment"
    )["spec"]["template"]["spec"]["containers"]
    told = next(env["value"] for env in containers[0]["env"] if env["name"] == "MAILFLEET_URL_NETWORKS")
    assert told == "10.0.0.0/8,fd00::/8"


def test_another_ledger_restarts_the_operator() -> None:
    def configuration(*values: str) -> str:
        template = one(render("mailfleet", *values), "Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["mailfleet.dev/configuration"])

    assert configuration(*URLS) == configuration(*URLS)
    assert configuration(*URLS) != configuration(URLS[0] + "2", URLS[1])


def test_operator_has_the_rights_that_it_uses_and_no_other() -> None:
    roles = [m for m in render("mailfleet", *URLS) if m["kind"] == "ClusterRole"]
    (role,) = [m for m in roles if m["metadata"]["name"].endswith("-operator")]
    assert granted_by(role) == RIGHTS


def test_the_page_about_security_names_each_right() -> None:
    told = {}
    for resources, verbs in re.findall(r"^(`[^|]*?) \| ([a-z, ]+) \|", SECURITY.read_text(), re.MULTILINE):
        told |= {name: set(verbs.split(", ")) for name in re.findall(r"`([^`]+)`", resources)}
    assert told == {resource.partition("/")[2]: verbs for resource, verbs in RIGHTS.items()}


def test_api_server_grants_exactly_that(system: ControlPlane) -> None:
    rights = [
        m for m in render("mailfleet", *URLS) if m["kind"] in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding")
    ]
    system.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(rights))

    def may(verb: str, resource: str) -> bool:
        name, _, part = resource.partition("/")
        command = ("auth", "can-i", verb, name, f"--subresource={part}", ACCOUNT, "--namespace=shop-a")
        return system.kubectl(*command, check=False).splitlines()[-1] == "yes"

    assert may("create", "jobs.batch")
    assert may("patch", "emailcampaigns.mailfleet.dev/status")
    for verb, resource in [
        ("get", "secrets"), ("list", "secrets"), ("get", "configmaps"), ("patch", "emailcampaigns.mailfleet.dev"),
        ("update", "jobs.batch"), ("create", "pods"), ("delete", "pods"), ("create", "pods/exec"), ("get", "pods/log"),
        ("patch", "nodes"), ("delete", "namespaces"), ("create", "customresourcedefinitions.apiextensions.k8s.io"),
    ]:  # fmt: skip
        assert not may(verb, resource), f"{verb} {resource}"


def test_people_who_may_edit_a_namespace_may_send_from_it(system: ControlPlane) -> None:
    roles = [
        m for m in render("mailfleet", *URLS) if m["kind"] == "ClusterRole" and "rbac" in str(m["metadata"]["labels"])
    ]
    assert [m["metadata"]["name"] for m in roles] == [
        "mailfleet-system-mailfleet-view",
        "mailfleet-system-mailfleet-edit",
    ]
    manifests = render("mailfleet", *URLS, "--set=rbac.aggregateClusterRoles=false")
    loose = [m for m in manifests if m["kind"] == "ClusterRole"]
    assert len(loose) == 3
    assert "aggregate-to" not in str(loose)
    view, edit = (role["metadata"]["labels"] for role in roles)
    assert view["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in edit
    assert edit["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_upgrade_brings_new_definitions_and_uninstall_keeps_them(
    empty: ControlPlane, tmp_path: Path, client: Program
) -> None:
    """Why the definitions are templates: Helm installs a chart's folder crds/ once and never again."""
    older = tmp_path / "mailfleet"
    shutil.copytree(CHARTS["mailfleet"], older)
    file = older / "files/crds/emailrelays.mailfleet.dev.yaml"
    file.write_text(file.read_text().replace("helloName:", "greeting:"))
    where = (f"--namespace={SYSTEM}", *URLS)

    def run(*args: str) -> str:
        done = helm(*args, kubeconfig=empty.kubeconfig, client=client)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def explained() -> str:
        # The definition itself, not explain: the API server publishes its OpenAPI some seconds later.
        return empty.kubectl("get", "crd", "emailrelays.mailfleet.dev", "-o", "yaml")

    told = run("install", "mailfleet", str(older), *where)
    assert "kubectl explain emailcampaign.spec" in told
    assert "No namespace can send yet" in told
    assert "greeting:" in explained()
    run("upgrade", "mailfleet", str(CHARTS["mailfleet"]), *where)
    assert "helloName:" in explained()
    assert "greeting:" not in explained()
    run("uninstall", "mailfleet", f"--namespace={SYSTEM}")
    assert "helloName:" in explained()
    run("install", "mailfleet", str(CHARTS["mailfleet"]), *where, "--set=crds.keep=false")
    run("uninstall", "mailfleet", f"--namespace={SYSTEM}", "--wait")
    assert empty.kubectl("get", "crd", "-o", "name") == ""


def test_notes_tell_the_next_command(empty: ControlPlane) -> None:
    command = ("install", "mailfleet", str(CHARTS["mailfleet"]), f"--namespace={SYSTEM}", "--dry-run=server", *URLS)
    told = helm(*command, "--set=campaignNamespaces={default}", kubeconfig=empty.kubeconfig).stdout
    notes = told[told.index("NOTES:") :]
    assert f"kubectl --namespace {SYSTEM} rollout status deployment/mailfleet-operator" in notes
    assert f"helm test mailfleet --namespace {SYSTEM}" in notes
    assert "kubectl --namespace default get emailcampaigns --watch" in notes


def test_monitoring_is_off_until_it_is_asked_for() -> None:
    kinds = {"PodMonitor", "PrometheusRule", "ConfigMap"}
    assert not kinds & {m["kind"] for m in render("mailfleet", *URLS)}
    on = [f"--set=monitoring.{part}.enabled=true" for part in ("podMonitor", "prometheusRule", "grafanaDashboard")]
    made = render("mailfleet", *URLS, *on, "--set=monitoring.prometheusRule.labels.release=prometheus")
    operator, senders = [m for m in made if m["kind"] == "PodMonitor"]
    pods = one(made, "Deployment")["spec"]["template"]
    assert operator["spec"]["selector"]["matchLabels"].items() <= pods["metadata"]["labels"].items()
    assert senders["spec"]["namespaceSelector"] == {"any": True}
    (port,) = {e["port"] for m in (operator, senders) for e in m["spec"]["podMetricsEndpoints"]}
    assert port in {p["name"] for p in pods["spec"]["containers"][0]["ports"]}
    rule = one(made, "PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    assert rule["spec"] == yaml.safe_load((CHARTS["mailfleet"] / "files" / "alerts.yaml").read_text())
    dashboard = one(made, "ConfigMap")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["mailfleet.json"])["uid"] == "mailfleet"


def test_who_scrapes_comes_through_the_network_policies() -> None:
    policies = ("--set=networkPolicy.enabled=true", "--set=campaignNamespaces={marketing}")

    def open_ports(*values: str) -> list[set[str]]:
        made = [m for m in render("mailfleet", *URLS, *policies, *values) if m["kind"] == "NetworkPolicy"]
        return [{p["port"] for rule in m["spec"]["ingress"] for p in rule["ports"]} for m in made]

    assert open_ports() == [{"health"}, set()]
    assert open_ports("--set=monitoring.podMonitor.enabled=true") == [{"health", "metrics"}, {"metrics"}]
