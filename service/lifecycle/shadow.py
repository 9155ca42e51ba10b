"""A shadow version scores a sampled copy of the traffic and answers nobody.

A copy is taken after the answer is made, put in a short queue and dropped when that is full; it is
scored by an engine of its own, whose thread yields to everything else.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_export.bundle.rank_correlation import kendall_tau
from service.engine.engine import Engine
from service.engine.niceness import LOWEST
from service.items.store_client import StoreReader
from service.models.registry import LoadedModel
from service.observability.background import keep
from service.observability.logs import logger
from service.observability.metrics import Metrics
from service.scoring.pipeline import ScoringPipeline
from service.scoring.query import ScoreQuery
from service.scoring.result import ScoreResult, best
from service.timings import StageTimer

WAITING = 8  # copies; more are dropped
TIME_S = 30.0  # for one copy, at the lowest priority
TOP = 20  # whose order is compared
Floats = NDArray[np.float32]


@dataclass(slots=True)
class ShadowStats:
    """Shadow against answer, over the copies scored so far."""

    requests: int = 0
    dropped: int = 0
    failed: int = 0
    candidates: int = 0
    total: float = 0.0  # of |Δp|
    worst: float = 0.0  # |Δp|
    taus: int = 0
    tau_total: float = 0.0

    def add(self, answered: Floats, shadowed: Floats) -> tuple[float, float]:
        """(C,) and (C,) probabilities of the same candidates; mean |Δp| and Kendall τ."""
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


class Shadow:
    """At most one version at a time."""

    def __init__(self, store: StoreReader, metrics: Metrics, chunk: int) -> None:
        self._engine = Engine(1, chunk=chunk, niceness=LOWEST)
        # Its look-ups and counts are not the service's.
        reader = StoreReader(store.store, Metrics(), may_do_without=False)
        self._scoring = ScoringPipeline(reader, self._engine, Metrics())
        self._metrics = metrics
        self._current: _Shadowed | None = None
        self._queue: asyncio.Queue[tuple[_Shadowed, ScoreQuery, ScoreResult]] = asyncio.Queue(
            WAITING
        )
        self._worker = keep("shadow", self._work)

    @property
    def version(self) -> LoadedModel | None:
        return self._current.version if self._current else None

    def begin(self, version: LoadedModel, share: float) -> None:
        """From now on it scores this share of the requests; a change of share keeps its counts."""
        if self._current and self._current.version is version:
            self._current = _Shadowed(version, share, self._current.stats)
        else:
            self._current = _Shadowed(version, share)

    def end(self) -> None:
        self._current = None
        while not self._queue.empty():  # copies hold the version
            self._queue.get_nowait()

    def offer(self, query: ScoreQuery, answer: ScoreResult) -> None:
        """Perhaps take a copy. Costs the request a microsecond."""
        current = self._current
        if current is None or random.random() >= current.share:
            return
        if answer.history_lost:  # it would be compared with an answer to another question
            return
        try:
            self._queue.put_nowait((current, query, answer))
        except asyncio.QueueFull:
            current.stats.dropped += 1
            self._metrics.shadow.labels("dropped").inc()

    def as_json(self) -> dict[str, Any] | None:
        current = self._current
        if current is None:
            return None
        return {
            "version": current.version.name,
            "share": current.share,
            **current.stats.as_json(),
        }

    async def close(self) -> None:
        self._worker.cancel()
        self._current = None
        await asyncio.to_thread(self._engine.close)

    async def _work(self) -> None:
        while True:
            copy = await self._queue.get()
            try:
                await self._compare(*copy)
            except Exception as error:  # whatever a version under trial does is only counted
                copy[0].stats.failed += 1
                self._metrics.shadow.labels("failed").inc()
                if copy[0].stats.failed == 1:
                    logger.exception("shadow failed", model_version=copy[0].version.name)
                del error
            del copy

    async def _compare(self, current: _Shadowed, query: ScoreQuery, answer: ScoreResult) -> None:
        same = ScoreQuery(  # the very history that was read for the answer
            query.user_id,
            query.candidates,
            answer.history[: current.version.schema.history_length],
            query.context,
        )
        deadline = perf_counter() + TIME_S
        other = await self._scoring.answer(same, current.version, deadline, StageTimer())
        both = ~np.isnan(answer.scores) & ~np.isnan(other.scores)
        if not both.any():
            return
        mean, tau = current.stats.add(answer.scores[both], other.scores[both])
        self._metrics.shadow.labels("scored").inc()
        self._metrics.shadow_delta.observe(mean)
        self._metrics.shadow_worst.set(current.stats.worst)
        self._metrics.shadow_tau.observe(tau)
