"""The metrics exporter: the numbers of this process, or of all workers of the service."""

from __future__ import annotations

import asyncio
import math
from functools import partial
from pathlib import Path
from time import monotonic
from typing import NamedTuple, Protocol

from service.observability.background import begin
from service.observability.exposition import Turn, Writer, at_once, exposition_in_turns
from service.observability.metered import Metered
from service.observability.metrics import Metrics
from service.observability.multiprocess import MultiprocessExporter

KEPT_S = 1.0


class Worker(NamedTuple):
    """One of several processes that listen at the same address."""

    number: int  # from 0; the successor of a dead worker has its number
    folder: Path  # of the service, and new when that starts; best in memory


class Exporter(Protocol):
    async def __aenter__(self) -> object: ...
    async def __aexit__(self, *_: object) -> None: ...

    async def render(self) -> bytes:
        """In Prometheus's text format."""
        ...


class Budget(Protocol):
    """The event loop's time for work other than scoring: see ``service.admission.loop_budget``."""

    @property
    def affords(self) -> bool: ...
    def spend(self, kind: str, seconds: float) -> None: ...
    async def turn(self) -> None: ...


class ProcessExporter:
    """Exports the metrics of a single process."""

    def __init__(self, metrics: Metrics) -> None:
        self._registry, self._writer = metrics.registry, Writer(metrics)

    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *_: object) -> None: ...

    async def render(self, turn: Turn = at_once) -> bytes:
        families = map(self._writer.family, self._registry.collect())
        return await exposition_in_turns(families, turn)


class ThrottledExporter:
    """Renders once for all scrapes that overlap, within the loop's budget. Where that is spent, a
    scrape within ``KEPT_S`` of the last one gets its text again."""

    def __init__(self, exporter: ProcessExporter | MultiprocessExporter, budget: Budget) -> None:
        self._exporter, self._budget = exporter, budget
        self._content, self._rendered = b"", -math.inf
        self._under_way: asyncio.Task[bytes] | None = None

    async def __aenter__(self) -> None:
        await self._exporter.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        if self._under_way is not None:
            self._under_way.cancel()
        await self._exporter.__aexit__(*error)

    async def render(self) -> bytes:
        if monotonic() - self._rendered < KEPT_S and not self._budget.affords:
            return self._content
        if self._under_way is None:
            self._under_way = begin("metrics", self._render())
            self._under_way.add_done_callback(self._ended)
        return await asyncio.shield(self._under_way)

    async def _render(self) -> bytes:
        spent = partial(self._budget.spend, "metrics")
        self._content = await Metered(self._exporter.render(self._budget.turn), spent)
        self._rendered = monotonic()
        return self._content

    def _ended(self, task: asyncio.Task[bytes]) -> None:
        self._under_way = None


def make_exporter(
    metrics: Metrics, worker: Worker | None, budget: Budget | None = None
) -> Exporter:
    """Of all workers if there is a ``worker``; throttled if there is a ``budget``."""
    exporter: ProcessExporter | MultiprocessExporter = ProcessExporter(metrics)
    if worker is not None:
        exporter = MultiprocessExporter(metrics, worker.folder, worker.number)
    return exporter if budget is None else ThrottledExporter(exporter, budget)
