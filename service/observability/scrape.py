"""What Prometheus is given: this process's numbers, or those of all that make up the service."""

from __future__ import annotations

import asyncio
import math
from functools import partial
from pathlib import Path
from time import monotonic
from typing import NamedTuple, Protocol

from service.admission.loop_budget import LoopBudget
from service.admission.metered import Metered
from service.observability.background import begin
from service.observability.exposition import Turn, Writer, at_once, exposition_in_turns
from service.observability.metrics import Metrics
from service.observability.multiprocess import SharedMetrics

KEPT_S = 1.0


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

    async def render(self, turn: Turn = at_once) -> bytes:
        families = map(self._writer.family, self._registry.collect())
        return await exposition_in_turns(families, turn)


class Kept:
    """One scrape at a time, for all who ask meanwhile; and kept for a moment where the loop's
    budget does not afford another."""

    def __init__(self, scrape: OwnMetrics | SharedMetrics, budget: LoopBudget) -> None:
        self._scrape, self._budget = scrape, budget
        self._content, self._rendered = b"", -math.inf
        self._under_way: asyncio.Task[bytes] | None = None

    async def __aenter__(self) -> None:
        await self._scrape.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        if self._under_way is not None:
            self._under_way.cancel()
        await self._scrape.__aexit__(*error)

    async def render(self) -> bytes:
        if monotonic() - self._rendered < KEPT_S and not self._budget.affords:
            return self._content
        if self._under_way is None:
            self._under_way = begin("metrics", self._render())
            self._under_way.add_done_callback(self._ended)
        return await asyncio.shield(self._under_way)

    async def _render(self) -> bytes:
        spent = partial(self._budget.spend, "metrics")
        self._content = await Metered(self._scrape.render(self._budget.turn), spent)
        self._rendered = monotonic()
        return self._content

    def _ended(self, task: asyncio.Task[bytes]) -> None:
        self._under_way = None


def scrape_of(metrics: Metrics, worker: Worker | None, budget: LoopBudget | None = None) -> Scrape:
    """Charged to the ``budget``, and kept where that is spent."""
    scrape: OwnMetrics | SharedMetrics = OwnMetrics(metrics)
    if worker is not None:
        scrape = SharedMetrics(metrics, worker.folder, worker.number)
    return scrape if budget is None else Kept(scrape, budget)
