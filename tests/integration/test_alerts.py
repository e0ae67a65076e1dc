"""The chart's alert rules and dashboard, judged by promtool and by the registries."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from custom_resources import CHARTS
from metrics_scene import MOST, operator_registry, sender_registry
from prometheus import PROMTOOL

if TYPE_CHECKING:
    from pathlib import Path

RULES = CHARTS["mailfleet"] / "files" / "alerts.yaml"
DASHBOARD = CHARTS["mailfleet"] / "files" / "dashboard.json"
WHOSE = 'namespace="marketing", emailcampaign="autumn"'
C, R = "mailfleet_emailcampaign", "mailfleet_emailrelay"
PRESENT = ("mailfleet_operator_info", "1x60")
# Each alert: series over an hour, one sample a minute; when it is silent, and when it fires.
SCENES: dict[str, tuple[list[tuple[str, str]], str, str]] = {
    "MailfleetCampaignStalled": (
        [(f'{C}_status_condition{{{WHOSE}, condition="Stalled", status="true"}}', "0x5 1x55")],
        "14m",
        "17m",
    ),
    "MailfleetRecipientsUncertain": ([(f'{C}_recipients{{{WHOSE}, outcome="uncertain"}}', "0x5 3x55")], "5m", "6m"),
    "MailfleetCampaignBraked": (
        [
            (f'{C}_status_condition{{{WHOSE}, condition="Suspended", status="true"}}', "1x60"),
            (f'{C}_status_condition_reason{{{WHOSE}, condition="Suspended", reason="BySpec"}}', "1x5 _x55"),
            (f'{C}_status_condition_reason{{{WHOSE}, condition="Suspended", reason="SenderFault"}}', "_x5 1x55"),
        ],
        "4m",
        "7m",
    ),
    "MailfleetQuotaNearlyUsed": (
        [
            (f'{R}_quota_messages{{namespace="marketing", relay="ses"}}', "100x60"),
            (f'{R}_quota_used_messages{{namespace="marketing", relay="ses"}}', "90x5 91x55"),
        ],
        "5m",
        "7m",
    ),
    "MailfleetEndTimeWillBeMissed": (
        [
            (f"{C}_end_timestamp_seconds{{{WHOSE}}}", "7200x60"),
            (f"{C}_estimated_completion_timestamp_seconds{{{WHOSE}}}", "7000x5 7300x55"),
        ],
        "14m",
        "17m",
    ),
    "MailfleetLedgerUnreachable": ([("mailfleet_ledger_up", "1x5 0x55")], "6m", "9m"),
    "MailfleetLimiterUnreachable": ([("mailfleet_limiter_up", "1x5 0x55")], "6m", "9m"),
    "MailfleetOperatorAbsent": ([("mailfleet_operator_info", "1x5 _x55")], "12m", "30m"),
}


def promtool(*args: str | Path) -> str:
    assert PROMTOOL.exists(), "run deploy/debian-packages.sh tests"
    done = subprocess.run([PROMTOOL, *args], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    return found


def test_the_rules_are_rules() -> None:
    assert f"SUCCESS: {len(SCENES)} rules found" in promtool("check", "rules", RULES)


def test_each_rule_has_its_scene() -> None:
    assert {rule["alert"] for rule in rules()} == set(SCENES)


@pytest.mark.parametrize("alert", SCENES)
def test_an_alert_fires_when_it_should_and_not_before(alert: str, tmp_path: Path) -> None:
    series, silent, fires = SCENES[alert]
    if all(PRESENT[0] != name for name, _ in series):
        series = [*series, PRESENT]
    (rule,) = [rule for rule in rules() if rule["alert"] == alert]
    # Whether it fires is asked of ALERTS, whose samples are there even where promtool compares no words.
    count = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)'
    scene = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series],
                "promql_expr_test": [
                    {"expr": count, "eval_time": silent, "exp_samples": [{"value": 0, "labels": "{}"}]},
                    {"expr": count, "eval_time": fires, "exp_samples": [{"value": 1, "labels": "{}"}]},
                ],
            }
        ],
    }
    file = tmp_path / "scene.yaml"
    file.write_text(yaml.safe_dump(scene))
    promtool("test", "rules", file)
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}


def known_names() -> set[str]:
    """Every name a query may use: of histograms and counters, those of their series."""
    families = [*operator_registry(MOST).collect(), *sender_registry().collect()]
    endings = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",)}
    return {f.name + ending for f in families for ending in endings.get(f.type, ("",))}


def test_rules_and_dashboard_name_only_metrics_that_exist() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [variable["query"] for variable in dashboard["templating"]["list"]]
    queries += [rule["expr"] for rule in rules()]
    named = {name for query in queries for name in re.findall(r"mailfleet_\w+", query)}
    assert len(named) > 20
    assert named <= known_names(), named - known_names()
