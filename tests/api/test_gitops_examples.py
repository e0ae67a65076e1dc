"""The examples for campaigns in Git, on a real API server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import yaml

from custom_resources import EXAMPLES, campaign, relay

if TYPE_CHECKING:
    from kube import ControlPlane

GITOPS = EXAMPLES / "gitops"
CHECKED = ("apply", "--dry-run=server", "--server-side", "--validate=strict", "--warnings-as-errors", "-f")


def test_api_server_accepts_them(api: ControlPlane, namespace: str) -> None:
    for path in (GITOPS / "campaigns", GITOPS / "recurring.yaml"):
        assert "serverside-applied" in api.kubectl(*CHECKED, str(path), f"--namespace={namespace}")


def test_campaigns_in_git_do_not_start_late_and_leave_actions_their_fields() -> None:
    for file in (GITOPS / "campaigns").iterdir():
        spec = yaml.safe_load(file.read_text())["spec"]
        if "message" in spec:
            assert {"startTime", "startingDeadlineSeconds"} <= set(spec["schedule"])
            assert not {"suspend", "cancel", "retryFailed", "runId"} & set(spec)


def test_recurring_campaign_is_given_the_run_of_its_job(api: ControlPlane, namespace: str) -> None:
    """The CronJob's own command, with a name as the CronJob controller makes them: <name>-<minutes since 1970>."""
    for manifest in (relay(), campaign("weekly-news")):
        api.kubectl("create", f"--namespace={namespace}", "-f", "-", stdin=json.dumps(manifest))
    cron = next(m for m in yaml.safe_load_all((GITOPS / "recurring.yaml").read_text()) if m["kind"] == "CronJob")
    (container,) = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    variables = {env["name"]: env.get("value", "weekly-news-29747520") for env in container["env"]}
    patch = variables["PATCH"].replace("$(RUN)", variables["RUN"])
    _, *words = container["command"]
    for _attempt in range(2):
        api.kubectl(*words, *(a.replace("$(PATCH)", patch) for a in container["args"]), f"--namespace={namespace}")
        found = api.kubectl("get", "ec", "weekly-news", f"--namespace={namespace}", "-o", "jsonpath={.spec.runId}")
        assert found == "weekly-news-29747520"
