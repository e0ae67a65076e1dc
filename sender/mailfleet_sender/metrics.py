"""What a sender tells Prometheus (docs/decisions/0110).

Nothing is counted here: a scrape reads the tally of the sending, from a thread of its own.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from .delivery.pool import Pool
    from .delivery.tally import Durations, Tally


class SenderMetrics(Collector):
    """One sender's series: of one campaign over one relay. See `tally.Tally` for what they count."""

    def __init__(self, whose: Mapping[str, str], tally: Tally, pool: Pool) -> None:
        """With the labels that say whose they are, the same on every series."""
        self._names, self._values = tuple(whose), tuple(whose.values())
        self._tally, self._pool = tally, pool

    def collect(self) -> Iterator[Metric]:
        """As they are now."""
        tally, pool = self._tally, self._pool
        messages = self._counter(
            "messages", "Mails by the mailbox provider of their recipient, and by what the relay said.",
            ("provider", "outcome"),
        )  # fmt: skip
        for provider, outcomes in tally.messages.items():
            for outcome, count in outcomes.items():
                messages.add_metric((*self._values, provider, outcome), count)
        yield messages
        unmailed = self._counter(
            "unmailed_recipients", "Recipients whose outcome was known without the relay.", ("outcome",)
        )
        for outcome, count in tally.unmailed.items():
            unmailed.add_metric((*self._values, outcome), count)
        yield unmailed
        yield self._histogram(
            "smtp_transaction_duration_seconds", "From a mail's beginning to the relay's answer.", tally.transactions
        )
        yield self._histogram(
            "ledger_commit_duration_seconds", "From handing a write to the ledger until it is committed.", tally.commits
        )
        yield self._gauge("connections", "Connections to the relay that are open.", pool.held)
        yield self._total("connections_opened", "Connections to the relay that were opened.", pool.opened)
        yield self._total("connection_failures", "Attempts to open a connection that failed.", pool.unopened)
        yield self._total("permits_granted", "Permits to send that the limiter gave.", tally.granted)
        yield self._total("permits_dropped", "Permits that were not used in time.", tally.lapsed)
        yield self._total(
            "permit_wait_seconds",
            "Time in which the sender had recipients and waited for permits; near 1/s the limit sets the pace.",
            tally.waited_seconds,
        )
        refused = self._counter("permit_refusals", "Answers of the limiter without a permit, by reason.", ("reason",))
        for reason, count in tally.refused.items():
            refused.add_metric((*self._values, reason), count)
        yield refused

    def _counter(self, name: str, what: str, labels: tuple[str, ...] = ()) -> CounterMetricFamily:
        return CounterMetricFamily(f"mailfleet_sender_{name}", what, labels=(*self._names, *labels))

    def _total(self, name: str, what: str, value: float) -> Metric:
        family = self._counter(name, what)
        family.add_metric(self._values, value)
        return family

    def _gauge(self, name: str, what: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"mailfleet_sender_{name}", what, labels=self._names)
        family.add_metric(self._values, value)
        return family

    def _histogram(self, name: str, what: str, durations: Durations) -> Metric:
        family = HistogramMetricFamily(f"mailfleet_sender_{name}", what, labels=self._names)
        ends = [*map(floatToGoString, durations.bounds), "+Inf"]
        buckets = list(zip(ends, accumulate(list(durations.counts)), strict=True))
        family.add_metric(self._values, buckets, durations.seconds)
        return family
