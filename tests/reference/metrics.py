"""docs/reference/metrics.md, from the registries themselves: python -m reference.metrics"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from metrics_scene import MOST, operator_registry, sender_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
HEAD = """\
# Metrics
<!-- Made by `make reference` from the registries; a test compares it with them. -->
The operator and each sender serve `/metrics` in Prometheus' text format on the container port named `metrics` (9090;
elsewhere `MAILFLEET_METRICS_PORT`, and nothing is served without it). Planners do not.

- No label holds an address, a reply's text or anything else of which there are many: `provider` folds the recipients'
  domains to a fixed list, `reason` is a word of Mailfleet's own. A scrape holds at most 60 series of one campaign.
- The series of a campaign are gone when it is deleted. What is not known has no series.
- The operator tells what its last look at a campaign found (every two seconds while it is under way, each minute when
  it is over). Its counts of recipients are the ledger's and survive every restart; senders count since they began.
- Every process also tells `process_*`: CPU, memory, open files.
- While the operator is down its series are absent and mail goes on: the alerts say that too.

The chart brings PodMonitors, alert rules and a Grafana dashboard: values `monitoring.podMonitor.enabled`,
`monitoring.prometheusRule.enabled`, `monitoring.grafanaDashboard.enabled`. Without the Prometheus Operator load
`charts/mailfleet/files/alerts.yaml` and scrape with `honor_labels: true`, so that `namespace` is the campaign's.
"""
GROUPS = {
    "mailfleet_emailcampaign_": "The operator, of each campaign",
    "mailfleet_emailrelay_": "The operator, of each relay",
    "mailfleet_": "The operator, of itself",
    "mailfleet_sender_": "Each sender",
}


def page() -> str:
    """The whole page."""
    families = [*_families(operator_registry(MOST)), *_families(sender_registry())]
    parts = [HEAD]
    for prefix, title in GROUPS.items():
        mine = [f for f in families if prefix == max((p for p in GROUPS if f.name.startswith(p)), key=len)]
        parts.append(f"\n## {title}\n| metric | type | labels | what |\n|---|---|---|---|\n")
        parts += map(_row, mine)
    return "".join(parts)


def _families(registry: CollectorRegistry) -> Iterator[Metric]:
    return iter(sorted(registry.collect(), key=lambda family: family.name))


def _row(family: Metric) -> str:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels: dict[str, None] = {}
    for sample in family.samples:
        labels |= dict.fromkeys(label for label in sample.labels if label != "le")
    names = labels or dict.fromkeys(getattr(family, "_labelnames", ()))
    return f"| `{name}` | {family.type} | {', '.join(names)} | {family.documentation} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
