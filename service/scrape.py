"""What Prometheus is given: this process's numbers, or those of all that make up the service."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from service.metric_families import Writer, exposition
from service.metrics import Metrics
from service.shared_metrics import SharedMetrics


class Worker(NamedTuple):
    """One of several processes that listen at the same address."""

    number: int  # from 0; the one that takes the place of a dead worker has its number
    folder: Path  # of the service, and new when that starts; best in memory


class Scrape(Protocol):
    async def __aenter__(self) -> object: ...
    async def __aexit__(self, *_: object) -> None: ...

    async def render(self) -> bytes:
        """In Prometheus's text format."""
        ...


class OwnMetrics:
    """Of the only process there is."""

    def __init__(self, metrics: Metrics) -> None:
        self._registry, self._writer = metrics.registry, Writer(metrics)

    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *_: object) -> None: ...

    async def render(self) -> bytes:
        return exposition(map(self._writer.family, self._registry.collect()))


def scrape_of(metrics: Metrics, worker: Worker | None) -> Scrape:
    if worker is None:
        return OwnMetrics(metrics)
    return SharedMetrics(metrics, worker.folder, worker.number)
