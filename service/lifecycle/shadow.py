"""Scores a sample of the requests with a second version and compares the results.

The sample is scored in the background, and its result is never sent to a client.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from model_export.bundle.rank_correlation import kendall_tau
from model_export.bundle.top_k import best
from model_export.bundle.vectors import Floats
from service.context import StageTimer
from service.items.store_client import StoreReader
from service.lifecycle.sampled_worker import SampledWorker
from service.lifecycle.shadow_samples import ShadowSamples
from service.models.loaded_model import LoadedModel
from service.observability.logs import logger
from service.observability.metrics import Metrics
from service.scoring.feature_tensors import placed
from service.scoring.pipeline import ScoringPipeline
from service.scoring.query import ScoreQuery
from service.scoring.result import ScoreResult

TOP = 20  # candidates whose order is compared


@dataclass(slots=True)
class ShadowStats:
    """Differences between shadow and answer, over all samples."""

    requests: int = 0
    dropped: int = 0
    failed: int = 0
    candidates: int = 0
    total: float = 0.0  # of |Δp|
    worst: float = 0.0  # |Δp|
    taus: int = 0
    tau_total: float = 0.0

    def add(self, answered: Floats, shadowed: Floats) -> tuple[float, float]:
        """Add (C,) and (C,) probabilities of the same candidates. Returns mean |Δp|, Kendall τ."""
        apart = np.abs(answered.astype(np.float64) - shadowed)
        self.requests += 1
        self.candidates += len(apart)
        self.total += float(apart.sum())
        self.worst = max(self.worst, float(apart.max()))
        top = best(answered, TOP)
        tau = kendall_tau(answered[top], shadowed[top])
        self.taus, self.tau_total = self.taus + 1, self.tau_total + tau
        return float(apart.mean()), tau

    def as_json(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "dropped": self.dropped,
            "failed": self.failed,
            "mean_abs_delta_p": self.total / self.candidates if self.candidates else None,
            "worst_abs_delta_p": self.worst if self.candidates else None,
            "kendall_tau": self.tau_total / self.taus if self.taus else None,
        }


@dataclass(frozen=True, slots=True)
class _Shadowed:
    version: LoadedModel
    share: float
    stats: ShadowStats = field(default_factory=ShadowStats)
    samples: ShadowSamples = field(default_factory=ShadowSamples)


_Sample = tuple[_Shadowed, ScoreQuery, ScoreResult]


class Shadow:
    """Has at most one version at a time."""

    def __init__(self, store: StoreReader, metrics: Metrics, chunk: int) -> None:
        self._worker = SampledWorker[_Sample]("shadow", chunk, self._process)
        # With metrics of their own: the service's count requests only.
        reader = StoreReader(store.store, Metrics(), may_do_without=False)
        self._scoring = ScoringPipeline(reader, self._worker.engine, Metrics())
        self._metrics = metrics
        self._current: _Shadowed | None = None

    @property
    def version(self) -> LoadedModel | None:
        return self._current.version if self._current else None

    @property
    def samples(self) -> ShadowSamples | None:
        """The latest scores; None without a shadow."""
        return self._current.samples if self._current else None

    def begin(self, version: LoadedModel, share: float) -> None:
        """Score this share of the requests. A change of share keeps the statistics."""
        if self._current and self._current.version is version:
            self._current = replace(self._current, share=share)
        else:
            self._current = _Shadowed(version, share)

    def end(self) -> None:
        self._current = None
        self._worker.clear()

    def offer(self, query: ScoreQuery, answer: ScoreResult) -> None:
        """Sample an answered request, on the hot path."""
        current = self._current
        if current is None or random.random() >= current.share:
            return
        # The shadow would be asked something else.
        if answer.history_lost or answer.user_lost or query.inline is not None:
            return
        if not self._worker.offer((current, query, answer)):
            current.stats.dropped += 1
            self._metrics.shadow.labels("dropped").inc()

    def as_json(self) -> dict[str, Any] | None:
        current = self._current
        if current is None:
            return None
        return {"version": current.version.name, "share": current.share, **current.stats.as_json()}

    async def close(self) -> None:
        self._current = None
        await self._worker.close()

    async def _process(self, sample: _Sample) -> None:
        current = sample[0]
        try:
            await self._compare(*sample)
        except Exception:  # a version under trial may fail; counted, and logged once
            current.stats.failed += 1
            self._metrics.shadow.labels("failed").inc()
            if current.stats.failed == 1:
                logger.exception("shadow failed", model_version=current.version.name)

    async def _compare(self, current: _Shadowed, query: ScoreQuery, answer: ScoreResult) -> None:
        schema = current.version.schema
        query = placed(query, schema) if query.tensors else query
        same = ScoreQuery(  # with the history that was read for the answer
            query.user_id,
            query.candidates,
            answer.history[: schema.history_length],
            query.context,
            features=query.features_known_to(schema),
        )
        deadline = self._worker.deadline()
        timer = StageTimer()
        other, _ = await self._scoring.score(same, current.version, deadline, timer)
        both = ~np.isnan(answer.scores) & ~np.isnan(other.scores)
        if not both.any():
            return
        mean, tau = current.stats.add(answer.scores[both], other.scores[both])
        took = sum(timer.seconds.get(stage, 0.0) for stage in ("history", "rank"))
        current.samples.add(answer.scores[both], other.scores[both], took)
        self._metrics.shadow.labels("scored").inc()
        self._metrics.shadow_delta.observe(mean)
        self._metrics.shadow_worst.set(current.stats.worst)
        self._metrics.shadow_tau.observe(tau)
