"""A share of the top-k answers made with int8 is made again in float32, whole, and compared.

After the answer, in a thread that yields to everything else: nobody waits for it. The rows are
those the answer was made of; where their slots have been given to other items it is passed over.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from service.engine.engine import Engine
from service.engine.niceness import LOWEST
from service.items.table import StaleSlots
from service.models.registry import LoadedModel, ModelRegistry
from service.observability.background import failed, keep
from service.observability.logs import logger
from service.observability.metrics import Metrics
from service.scoring.ranking import Ranking
from service.scoring.result import best

WAITING = 8  # answers; more are passed over
TIME_S = 30.0  # for one, at the lowest priority


@dataclass(frozen=True, slots=True, eq=False)
class _Given:
    """An answer as it was given."""

    version: LoadedModel
    ranking: Ranking
    k: int


class TopKAudit:
    """On the event loop; one thread of its own."""

    def __init__(self, registry: ModelRegistry, metrics: Metrics, share: float, chunk: int) -> None:
        self._registry, self._metrics, self._share = registry, metrics, share
        self._engine = Engine(1, chunk=chunk, niceness=LOWEST)
        self._queue: asyncio.Queue[_Given] = asyncio.Queue(WAITING)
        self._worker = keep("recheck", self._work)

    def offer(self, version: LoadedModel, ranking: Ranking, k: int) -> None:
        """Perhaps take it. The version stays in memory until it is done with."""
        if random.random() >= self._share:
            return
        try:
            self._queue.put_nowait(_Given(version, ranking, k))
        except asyncio.QueueFull:
            self._metrics.rechecks.labels("passed_over").inc()
        else:
            self._registry.taken(version)

    async def close(self) -> None:
        self._worker.cancel()
        await asyncio.to_thread(self._engine.close)

    async def _work(self) -> None:
        while True:
            given = await self._queue.get()
            try:
                result = await self._compare(given)
            except StaleSlots:
                result = "passed_over"
            except Exception:  # the answer has been given, and stands
                failed("recheck", "recheck failed", model_version=given.version.name)
                result = "failed"
            finally:
                self._registry.given_back(given.version)
            self._metrics.rechecks.labels(result).inc()
            del given  # it keeps the model

    async def _compare(self, given: _Given) -> str:
        whole = given.ranking.anew()
        await self._engine.run(whole.rank_exactly, len(whole.known), perf_counter() + TIME_S)
        was, truly = best(given.ranking.scores, given.k), best(whole.scores, given.k)
        scores = given.ranking.scores[was], whole.scores[truly]
        if np.array_equal(was, truly) and np.array_equal(*scores):
            return "equal"
        logger.error(
            "a top-k answer differs from a full float32 pass",
            model_version=given.version.name,
            k=given.k,
            candidates=len(whole.known),
            places=int((was != truly).sum()),
            worst_abs_delta_p=float(np.abs(scores[0] - scores[1]).max()),
            remedy="serve with QIN_PRECISION=fp32 and report it",
        )
        return "different"
