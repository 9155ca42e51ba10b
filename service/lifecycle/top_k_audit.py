"""Verifies a sample of int8 and bf16 top-k answers against a complete float32 pass.

Runs in the background, on the rows that the answer was computed from. A sample is skipped when its
table slots have been reused meanwhile.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from model_export.bundle.top_k import best
from service.items.table import StaleSlots
from service.lifecycle.sampled_worker import SampledWorker
from service.models.loaded_model import LoadedModel
from service.models.registry import ModelRegistry
from service.observability.background import failed
from service.observability.logs import logger
from service.observability.metrics import Metrics
from service.scoring.ranking import Ranking


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    version: LoadedModel
    ranking: Ranking  # as it was answered
    k: int


class TopKAudit:
    """Used on the event loop; scores in one thread of its own."""

    def __init__(self, registry: ModelRegistry, metrics: Metrics, share: float, chunk: int) -> None:
        self._registry, self._metrics, self._share = registry, metrics, share
        self._worker = SampledWorker[_Sample]("recheck", chunk, self._process)

    def offer(self, version: LoadedModel, ranking: Ranking, k: int) -> None:
        """Sample an answer. Its version stays in memory until the sample is compared."""
        if random.random() >= self._share:
            return
        if self._worker.offer(_Sample(version, ranking, k)):
            self._registry.taken(version)
        else:
            self._metrics.rechecks.labels("passed_over").inc()

    async def close(self) -> None:
        await self._worker.close()

    async def _process(self, sample: _Sample) -> None:
        try:
            result = await self._compare(sample)
        except StaleSlots:
            result = "passed_over"
        except Exception:
            failed("recheck", "top-k audit failed", model_version=sample.version.name)
            result = "failed"
        finally:
            self._registry.given_back(sample.version)
        self._metrics.rechecks.labels(result).inc()

    async def _compare(self, sample: _Sample) -> str:
        exact, given = sample.ranking.unscored(), sample.ranking.scores
        deadline = self._worker.deadline()
        await self._worker.engine.run(exact.rank_exactly, len(exact.known), deadline)
        was, truly = best(given, sample.k), best(exact.scores, sample.k)
        scores = given[was], exact.scores[truly]
        if np.array_equal(was, truly) and np.array_equal(*scores):
            return "equal"
        logger.error(
            "a top-k answer differs from a full float32 pass",
            model_version=sample.version.name,
            k=sample.k,
            candidates=len(exact.known),
            places=int((was != truly).sum()),
            worst_abs_delta_p=float(np.abs(scores[0] - scores[1]).max()),
            remedy="serve with QIN_PRECISION=fp32 and report it",
        )
        return "different"
