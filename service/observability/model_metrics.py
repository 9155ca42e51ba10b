"""Metrics of each version in memory. A version's series go with it, which bounds their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.observability.metrics import Metrics
from service.observability.version_stats import VersionStats

COUNT, SECONDS = "qin_model_inferences", "qin_model_inference_seconds"
LAST = "qin_model_last_inference_timestamp_seconds"
Numbers = dict[tuple[str, ...], float]  # by the labels after the version
Kind = type[CounterMetricFamily] | type[GaugeMetricFamily]


def expose_versions(
    metrics: Metrics, versions: Callable[[], Iterable[tuple[str, VersionStats]]]
) -> None:
    """``versions``: name and statistics of those in memory, read when scraped."""

    def add(
        kind: Kind,
        name: str,
        documentation: str,
        labels: list[str],
        read: Callable[[VersionStats], Numbers],
    ) -> None:
        metrics.registry.register(_OfVersions(kind, name, documentation, labels, versions, read))

    add(
        CounterMetricFamily,
        COUNT,
        "Scoring requests that took this version, by outcome: success or fail.",
        ["outcome"],
        lambda of: {(outcome,): count for outcome, count in of.requests.items()},
    )
    add(
        CounterMetricFamily,
        SECONDS,
        "Their time in all, by outcome, and that of the successful ones by what it went into.",
        ["part"],
        lambda of: {(part,): seconds for part, seconds in of.seconds.items()},
    )
    metrics.merges[LAST] = "max"
    add(GaugeMetricFamily, LAST, "When the last one ended; 0: never.", [], lambda of: {(): of.last})


class _OfVersions(Collector):
    """One metric."""

    def __init__(
        self,
        kind: Kind,
        name: str,
        documentation: str,
        labels: list[str],
        versions: Callable[[], Iterable[tuple[str, VersionStats]]],
        read: Callable[[VersionStats], Numbers],
    ) -> None:
        self._kind, self._name, self._documentation = kind, name, documentation
        self._labelnames = ("version", *labels)
        self._versions, self._read = versions, read

    def describe(self) -> Iterable[Metric]:
        yield self._kind(self._name, self._documentation, labels=self._labelnames)

    def collect(self) -> Iterable[Metric]:
        """A list: a generator would hold the last version between turns of the scrape."""
        return [self._family()]

    def _family(self) -> Metric:
        family = self._kind(self._name, self._documentation, labels=self._labelnames)
        for version, stats in self._versions():
            for labels, value in self._read(stats).items():
                family.add_metric([version, *labels], value)
        return family
