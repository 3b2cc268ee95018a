"""The counts as Prometheus reads them. Its shapes are made only when somebody looks.

Refuses to count, and to know a figure that `families.py` does not describe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from cacheproxy.buckets import Buckets
from cacheproxy.counting.counts import Counts
from cacheproxy.counting.durations import Histogram
from cacheproxy.counting.families import FAMILIES, PREFIX
from cacheproxy.counting.gauges import Gauges
from cacheproxy.counting.labels import Labels

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Exposition:
    """What `/metrics` shows. It has a registry of its own, so two proxies in one process do not meet."""

    def __init__(self, counts: Counts, gauges: Gauges) -> None:
        self._counts = counts
        self._gauges = gauges
        self._registry = CollectorRegistry()
        self._registry.register(_Face(self._families))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """All families, and what the operating system says of this process."""
        return generate_latest(self._registry)

    def _families(self) -> Iterator[Metric]:
        distributions = self._counts.distributions()
        for family in FAMILIES:
            name, text = PREFIX + family.name, f"{family.meaning} {family.worry}"
            if family.kind == "histogram":
                yield _histogram(HistogramMetricFamily(name, text, labels=family.labels), distributions[family.name])
            elif family.kind == "gauge":
                gauge = GaugeMetricFamily(name, text, labels=family.labels)
                yield _plain(gauge, self._gauges.read(family.name))
            else:
                counter = CounterMetricFamily(name, text, labels=family.labels)
                found = self._gauges.read(family.name) if family.read else self._counts.counters[family.name]
                yield _plain(counter, found)


def _plain(shown: CounterMetricFamily | GaugeMetricFamily, found: Mapping[Labels, float]) -> Metric:
    for labels, number in found.items():
        shown.add_metric(labels, number)
    return shown


def _histogram(shown: HistogramMetricFamily, found: Mapping[Labels, Histogram | Buckets]) -> Metric:
    for labels, figures in found.items():
        shown.add_metric(labels, figures.buckets(), figures.total)
    return shown


class _Face:
    """What prometheus_client calls a collector."""

    def __init__(self, families: Callable[[], Iterator[Metric]]) -> None:
        self.collect = families
