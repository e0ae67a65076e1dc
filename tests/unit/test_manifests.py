"""The Jobs that the operator makes hold the settings that were tried (DESIGN section 4)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from custom_resources import EXAMPLES
from mailfleet_operator import manifests, names, views
from mailfleet_operator.manifests import Image
from mailfleet_sender.contract import environment
from mailfleet_sender.settings import Environment, PlanSettings
from observations import campaign, relay

if TYPE_CHECKING:
    from mailfleet_operator.observation import RelayView

IMAGE = Image("registry.example/mailfleet-sender:1", "IfNotPresent", "mailfleet")


def plan_job(**spec: Any) -> dict[str, Any]:
    return manifests.plan_job(campaign(**spec), IMAGE, run=5, attempt=1)


def send_job(relay_spec: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return manifests.send_job(
        campaign(**spec), relay(**(relay_spec or {})), IMAGE, run=5, wave=2, ranges=40, parallelism=3, suspended=False
    )


def pod(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def variables(job: dict[str, Any]) -> dict[str, Any]:
    return {v["name"]: v.get("value", v.get("valueFrom")) for v in pod(job)["containers"][0]["env"]}


class TestSendJob:
    def test_an_index_is_a_range_and_no_failure_ends_it(self) -> None:
        spec = send_job()["spec"]
        assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 40, 3)
        assert spec["backoffLimitPerIndex"] == 2**31 - 1
        assert spec["podReplacementPolicy"] == "Failed"
        assert pod(send_job())["restartPolicy"] == "Never"

    def test_only_what_can_never_work_gives_an_index_up(self) -> None:
        rules = send_job()["spec"]["podFailurePolicy"]["rules"]
        assert [r["action"] for r in rules] == ["Ignore", "FailIndex", "Ignore"]
        assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
        assert rules[1]["onExitCodes"] == {"containerName": "sender", "operator": "In", "values": [78]}
        assert rules[2]["onExitCodes"] == {"containerName": "sender", "operator": "NotIn", "values": [78]}

    def test_it_is_told_what_it_needs(self) -> None:
        told = variables(send_job())
        assert told[environment.RUN] == "5"
        assert told[environment.WAVE] == "2"
        assert told[environment.RELAY] == "marketing/ses"
        assert told[environment.GRACE_SECONDS] == "60"
        assert told[environment.LEDGER_URL] == {"secretKeyRef": {"name": "mailfleet", "key": "ledger-url"}}
        assert told[environment.REDIS_URL] == {"secretKeyRef": {"name": "mailfleet", "key": "redis-url"}}
        assert told[environment.DATABASE_URL] == {"secretKeyRef": {"name": "shop", "key": "url"}}
        assert environment.SMTP_USERNAME not in told

    def test_its_metrics_have_a_port_of_a_name(self) -> None:
        (port,) = pod(send_job())["containers"][0]["ports"]
        assert port == {"name": "metrics", "containerPort": 9090, "protocol": "TCP"}
        assert variables(send_job())[environment.METRICS_PORT] == str(port["containerPort"])

    def test_a_relay_with_a_password_gives_its_secret(self) -> None:
        told = variables(send_job({"auth": {"secretRef": {"name": "ses-smtp"}}}))
        assert told[environment.SMTP_USERNAME] == {"secretKeyRef": {"name": "ses-smtp", "key": "username"}}
        assert told[environment.SMTP_PASSWORD] == {"secretKeyRef": {"name": "ses-smtp", "key": "password"}}

    def test_a_ca_is_a_file(self) -> None:
        job = send_job({"tls": {"caSecretRef": {"name": "ca", "key": "root.pem"}}})
        (volume,) = [v for v in pod(job)["volumes"] if v["name"] == "ca"]
        (mount,) = [m for m in pod(job)["containers"][0]["volumeMounts"] if m["name"] == "ca"]
        path = volume["secret"]["items"][0]["path"]
        assert variables(job)[environment.SMTP_CA_FILE] == f"{mount['mountPath']}/{path}"
        assert volume["secret"] == {"secretName": "ca", "items": [{"key": "root.pem", "path": path}]}

    def test_placement_and_resources_are_the_campaigns(self) -> None:
        senders = {
            "resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "250m"}},
            "nodeSelector": {"pool": "mail"},
            "tolerations": [
                {"key": "mail", "operator": "Equal", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 60}
            ],
            "priorityClassName": "low",
        }
        spec = pod(send_job(senders=senders))
        assert spec["containers"][0]["resources"] == senders["resources"]
        assert spec["nodeSelector"] == {"pool": "mail"}
        assert spec["tolerations"] == senders["tolerations"]
        assert spec["priorityClassName"] == "low"

    def test_it_is_removed_when_the_campaign_says(self) -> None:
        made = send_job(ttlSecondsAfterFinished=60), send_job()
        assert [job["spec"]["ttlSecondsAfterFinished"] for job in made] == [60, 86_400]

    def test_time_to_record_what_is_in_flight(self) -> None:
        assert pod(send_job())["terminationGracePeriodSeconds"] == 60


class TestPlanJob:
    def test_one_attempt_a_job(self) -> None:
        assert plan_job()["spec"]["backoffLimit"] == 0

    def test_it_knows_nothing_of_redis_or_the_relay(self) -> None:
        assert set(variables(plan_job())) == {
            environment.LEDGER_URL,
            environment.DATABASE_URL,
            environment.RUN,
            environment.POD_NAME,
        }

    def test_another_definition_or_database_is_another_job(self) -> None:
        other_text = {"message": {"from": "a@example.com", "subject": "s", "text": "other"}}
        table = {"databaseSecretRef": {"name": "elsewhere", "key": "url"}, "name": "people"}
        made = {
            plan_job()["metadata"]["name"],
            plan_job(**other_text)["metadata"]["name"],
            plan_job(recipients={"table": table})["metadata"]["name"],
            manifests.plan_job(campaign(), IMAGE, run=5, attempt=2)["metadata"]["name"],
        }
        assert len(made) == 4

    def test_the_same_decision_makes_the_same_name(self) -> None:
        assert plan_job() == plan_job()

    def test_the_config_maps_of_the_message_are_its_files(self) -> None:
        reference = {"name": "legal", "key": "terms.pdf"}
        message = {
            "from": "a@example.com",
            "templateRef": {"name": "autumn"},
            "attachments": [
                {"name": "a.pdf", "configMapKeyRef": reference},
                {"name": "b.pdf", "configMapKeyRef": {**reference, "key": "b"}},
                {"name": "c.pdf", "configMapKeyRef": reference},
            ],
        }
        made = pod(plan_job(message=message))
        mounts = {m["name"]: m for m in made["containers"][0]["volumeMounts"]}
        volumes = {
            mounts[v["name"]]["mountPath"]: v["configMap"] for v in made["volumes"] if v["name"].startswith("config-")
        }
        assert volumes == {
            f"{environment.CONFIG_MAPS}/{name}": {
                "name": name, "items": [{"key": key, "path": key} for key in keys], "optional": True,
            }
            for name, keys in {"autumn": ["html", "subject", "text"], "legal": ["b", "terms.pdf"]}.items()
        }  # fmt: skip
        assert all(mounts[v["name"]].get("readOnly") for v in made["volumes"] if v["name"].startswith("config-"))
        assert not [v for v in pod(send_job(message=message))["volumes"] if "configMap" in v]

    def test_a_mail_with_attachments_needs_more_memory_unless_the_campaign_says_how_much(self) -> None:
        attachment = {"name": "a.pdf", "configMapKeyRef": {"name": "legal", "key": "a"}}
        message = {"from": "a@example.com", "subject": "s", "text": "t", "attachments": [attachment]}
        own = {"limits": {"memory": "300Mi"}}
        resources = [
            pod(job)["containers"][0]["resources"]
            for job in (
                plan_job(message=message),
                send_job(message=message),
                send_job(message=message, senders={"resources": own}),
                plan_job(),
                send_job(),
            )
        ]
        large = {**manifests.DEFAULT_RESOURCES, "limits": {"memory": "1Gi"}}
        usual = {**manifests.DEFAULT_RESOURCES, "limits": {"memory": "256Mi"}}
        assert resources == [large, large, own, usual, usual]

    def test_a_file_of_recipients_is_the_planners_alone_and_no_database_is_told(self) -> None:
        source = {"csv": {"configMapKeyRef": {"name": "legal", "key": "vip.csv"}}}
        attachment = {"name": "a.pdf", "configMapKeyRef": {"name": "legal", "key": "a"}}
        message = {"from": "a@example.com", "subject": "s", "text": "t", "attachments": [attachment]}
        plan, send = plan_job(recipients=source, message=message), send_job(recipients=source, message=message)
        (volume,) = [v["configMap"] for v in pod(plan)["volumes"] if "configMap" in v]
        assert volume["name"] == "legal"
        assert [item["key"] for item in volume["items"]] == ["a", "vip.csv"]
        assert not [v for v in pod(send)["volumes"] if "configMap" in v]
        assert environment.DATABASE_URL not in variables(plan)
        assert environment.DATABASE_URL not in variables(send)

    def test_a_volume_is_mounted_for_reading_where_the_planner_looks(self) -> None:
        source = {"csv": {"persistentVolumeClaim": {"claimName": "lists", "path": "vip.csv"}}}
        plan = pod(plan_job(recipients=source))
        (volume,) = [v for v in plan["volumes"] if "persistentVolumeClaim" in v]
        (mount,) = [m for m in plan["containers"][0]["volumeMounts"] if m["name"] == volume["name"]]
        assert volume["persistentVolumeClaim"] == {"claimName": "lists", "readOnly": True}
        assert mount == {"name": volume["name"], "mountPath": environment.VOLUME, "readOnly": True}
        read = PlanSettings.read(
            Environment({"MAILFLEET_LEDGER_URL": "l", "MAILFLEET_POD_NAME": "p", "MAILFLEET_RUN": "1"})
        )
        assert str(read.volume_folder) == environment.VOLUME
        assert not [v for v in pod(send_job(recipients=source))["volumes"] if "persistentVolumeClaim" in v]

    def test_networks_that_are_allowed_are_told_to_who_fetches(self) -> None:
        image = replace(IMAGE, url_networks="10.0.0.0/8")
        url = {"csv": {"url": {"href": "https://files.example.com/a", "sha256": "0" * 64}}}
        fetching = manifests.plan_job(campaign(recipients=url), image, run=5, attempt=1)
        assert variables(fetching)[environment.URL_NETWORKS] == "10.0.0.0/8"
        assert environment.URL_NETWORKS not in variables(manifests.plan_job(campaign(), image, run=5, attempt=1))

    def test_a_planner_looks_where_they_are_mounted(self) -> None:
        variables = {"MAILFLEET_LEDGER_URL": "l", "MAILFLEET_DATABASE_URL": "d", "MAILFLEET_POD_NAME": "p"}
        settings = PlanSettings.read(Environment({**variables, "MAILFLEET_RUN": "1"}))
        assert str(settings.config_folder) == environment.CONFIG_MAPS


LOGIN = {"auth": {"secretRef": {"name": "login"}}, "tls": {"caSecretRef": {"name": "ca", "key": "root.pem"}}}


def preflight_job(**spec: Any) -> dict[str, Any]:
    return manifests.preflight_job(relay(**(spec or LOGIN)), IMAGE, made_for="12345678", attempt=2, after="f-1")


class TestPreflightJob:
    def test_it_is_told_the_relay_and_its_secrets_and_no_more(self) -> None:
        told = variables(preflight_job())
        assert set(told) == {
            environment.LEDGER_URL,
            environment.POD_NAME,
            environment.PREFLIGHT_FOR,
            environment.RELAY,
            environment.SMTP_USERNAME,
            environment.SMTP_PASSWORD,
            environment.SMTP_CA_FILE,
        }
        assert (told[environment.RELAY], told[environment.PREFLIGHT_FOR]) == ("marketing/ses", "12345678")
        assert told[environment.SMTP_PASSWORD] == {"secretKeyRef": {"name": "login", "key": "password"}}

    def test_it_connects_with_what_a_sender_has(self) -> None:
        sender, tried = pod(send_job(LOGIN)), pod(preflight_job())
        assert tried["volumes"] == sender["volumes"]
        assert tried["containers"][0]["volumeMounts"] == sender["containers"][0]["volumeMounts"]
        assert tried["securityContext"] == sender["securityContext"]
        assert tried["containers"][0]["securityContext"] == sender["containers"][0]["securityContext"]
        assert tried["automountServiceAccountToken"] is False
        assert tried["containers"][0]["args"] == ["preflight"]

    def test_one_attempt_a_job_and_it_belongs_to_the_relay(self) -> None:
        job = preflight_job()
        assert job["spec"]["backoffLimit"] == 0
        (owner,) = job["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("EmailRelay", "ses", "r-1")
        assert "mailfleet.dev/campaign" not in job["metadata"]["labels"]
        assert job["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "mailfleet-operator"

    def test_operator_and_pods_find_the_relay_by_an_annotation(self) -> None:
        job = preflight_job()
        body = {**job, "metadata": {**job["metadata"], "uid": "j-1"}}
        assert views.owner_relay(body) == ("marketing", "ses")
        assert views.owner_campaign(body) is None
        assert views.job(body).attempt == 2
        assert job["spec"]["template"]["metadata"]["annotations"]["mailfleet.dev/relay"] == "ses"

    def test_the_longest_name_of_a_relay_makes_names_and_labels_that_fit(self) -> None:
        name = ".".join(["relay-of-a-long-name"] * 12)
        assert len(f"{names.preflight_job(name, 'n', 'h', 1, '')}-") <= 58
        assert "." not in names.preflight_job(name, "n", "h", 1, "")
        assert len(names.relay_labels(name)["app.kubernetes.io/instance"]) <= 63


def test_the_desk_of_the_examples_is_a_senders_pod_that_does_nothing() -> None:
    made = yaml.safe_load((EXAMPLES / "desk.yaml").read_text())["spec"]
    sender = pod(send_job({"auth": {"secretRef": {"name": "relay-login"}}}))
    (desk,), (container,) = made["containers"], sender["containers"]
    own = {environment.RUN, environment.WAVE, environment.RELAY, environment.POD_NAME, environment.GRACE_SECONDS}
    own |= {environment.METRICS_PORT}
    assert {v["name"] for v in desk["env"]} == {v["name"] for v in container["env"]} - own
    assert made["securityContext"] == sender["securityContext"]
    for field in ("securityContext", "volumeMounts"):
        assert desk[field] == container[field]
    for field in ("volumes", "automountServiceAccountToken", "enableServiceLinks", "restartPolicy"):
        assert made[field] == sender[field]


@pytest.mark.parametrize("job", [plan_job(), send_job(), preflight_job()], ids=["plan", "send", "preflight"])
def test_every_pod_has_the_private_authority_of_the_sender_secret(job: dict[str, Any]) -> None:
    """Where the chart's operator has its own, so that one URL holds for all."""
    (volume,) = [v["secret"] for v in pod(job)["volumes"] if v["name"] == "trust"]
    assert volume == {"secretName": "mailfleet", "items": [{"key": "ca.crt", "path": "ca.crt"}], "optional": True}
    (mount,) = [m for m in pod(job)["containers"][0]["volumeMounts"] if m["name"] == "trust"]
    assert mount == {"name": "trust", "mountPath": "/etc/mailfleet/trust", "readOnly": True}


@pytest.mark.parametrize("job", [plan_job(), send_job()], ids=["plan", "send"])
class TestBoth:
    def test_the_pod_is_restricted(self, job: dict[str, Any]) -> None:
        spec = pod(job)
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["containers"][0]["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }

    def test_it_belongs_to_the_campaign(self, job: dict[str, Any]) -> None:
        (owner,) = job["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("EmailCampaign", "c-1", True)

    def test_its_labels_are_its_own(self, job: dict[str, Any]) -> None:
        labels = job["metadata"]["labels"]
        assert labels["app.kubernetes.io/managed-by"] == "mailfleet-operator"
        assert labels["app.kubernetes.io/instance"] == "autumn"
        assert labels["mailfleet.dev/run-id"] == "1"
        assert job["spec"]["template"]["metadata"]["labels"] == labels

    def test_argo_is_spared_its_updates(self, job: dict[str, Any]) -> None:
        note = {"argocd.argoproj.io/ignore-resource-updates": "true"}
        assert job["metadata"]["annotations"].items() >= note.items()
        assert job["spec"]["template"]["metadata"]["annotations"] == note

    def test_it_is_plain_json(self, job: dict[str, Any]) -> None:
        assert json.loads(json.dumps(job)) == job


def test_names_of_the_longest_campaign_fit_a_host_name() -> None:
    longest = "a" * 62 + "b"
    for name in (names.wave_job(longest, "n", 5, 1), names.plan_job(longest, "n", 5, "h", 1)):
        assert len(f"{name}-99999") <= 63


def test_campaigns_that_begin_alike_have_jobs_of_other_names() -> None:
    one, two = "a" * 60 + "1", "a" * 60 + "2"
    assert names.wave_job(one, "n", 5, 1) != names.wave_job(two, "n", 5, 1)


def made_for(a_relay: RelayView, secret: str = "mailfleet") -> str:
    return manifests.made_for_send(campaign(), a_relay, secret)


def test_secrets_that_change_make_another_job() -> None:
    assert made_for(relay()) != made_for(relay(auth={"secretRef": {"name": "s"}}))
    assert made_for(relay()) != made_for(relay(), "another")


def test_settings_that_live_in_the_ledger_do_not() -> None:
    assert made_for(relay("1/s")) == made_for(relay("2/s"))
