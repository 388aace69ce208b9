"""From counts to the text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from server.core.metric_names import Metric
from server.core.metrics import Gauges, Labels, Metrics, Spread

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Exposition(Collector):
    """All metrics of a server, and those of its process."""

    def __init__(self, metrics: Metrics, gauges: Gauges) -> None:
        self._metrics = metrics
        self._gauges = gauges
        self._registry = CollectorRegistry(auto_describe=False)  # its own: another server may be in this process
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        """The text of this moment, in the format that every Prometheus reads. Takes milliseconds."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Any]:
        """Nothing: so nobody collects when this is registered."""
        return []

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        """What the library asks for."""
        readings: list[tuple[Metric, Mapping[Labels, float]]] = [*self._metrics.read_counts(), *self._gauges.read()]
        for metric, values in readings:
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.name, metric.text, labels=metric.labels)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family
        for metric, spreads in self._metrics.read_spreads():
            histogram = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
            for labels, spread in spreads.items():
                histogram.add_metric(labels, list(list_buckets(metric, spread)), spread.total)
            yield histogram


def list_buckets(metric: Metric, spread: Spread) -> Iterator[tuple[str, float]]:
    """Upper bound and count of the buckets, each with what is in those before."""
    bounds = [*map(repr, metric.buckets), "+Inf"]
    return zip(bounds, map(float, accumulate(spread.counts)), strict=True)
