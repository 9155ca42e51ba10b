"""The way of one request: history -> item vectors -> score -> respond.

Shapes: H history items, C candidates, D item-vector width, X network width, F context features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from feature_store.contract import CORRUPT, FOUND, MISSING, Ids
from model_export.runtime import HistoryRows
from service.api import ScoreRequest
from service.engine import Engine
from service.errors import InvalidField, ModelFault
from service.exchange import Exchange
from service.items import FoundItems, find_items
from service.metrics import Metrics
from service.store import StoreReader
from service.versions import Version

Floats = NDArray[np.float32]
Indices = NDArray[np.int32]
Positions = NDArray[np.int64]
Overrides = list[tuple[int, Indices]]  # (context column, (C,) values)


@dataclass(frozen=True, slots=True)
class Scoring:
    """What scoring needs of the house."""

    store: StoreReader
    engine: Engine
    metrics: Metrics

    async def answer(
        self, asked: ScoreRequest, version: Version, deadline: float, exchange: Exchange
    ) -> bytes:
        """The JSON of the answer. Every step laps ``exchange.timings``."""
        candidates = np.array(asked.candidates, np.int64)  # (C,)
        overrides = context_overrides(asked, version)
        exchange.timings.lap("parse")

        history = await self.history(asked, version)  # (H,)
        exchange.timings.lap("store")

        ids = np.concatenate([history, candidates])  # (H + C,)
        found = await find_items(ids, version, self.store, self.engine, deadline, exchange.timings)

        scores = await self.score(found, len(history), overrides, version, deadline, exchange)
        answer = respond(asked, version, history, candidates, found, scores, exchange)
        self.count(candidates, history, found)
        exchange.timings.lap("encode")
        return answer

    async def history(self, asked: ScoreRequest, version: Version) -> Ids:
        """(H,) newest first, H at most the model's own history length."""
        longest = version.schema.history_length
        if asked.history is None:
            stored = await self.store.history(asked.user_id)
            return np.empty(0, np.int64) if stored is None else stored[:longest]
        if len(asked.history) > longest:
            raise InvalidField.of(
                "history", detail=f"at most {longest} items, which is all the model reads"
            )
        return np.array(asked.history[::-1], np.int64)

    async def score(
        self,
        found: FoundItems,
        history: int,
        overrides: Overrides,
        version: Version,
        deadline: float,
        exchange: Exchange,
    ) -> Floats:
        """(C,) probabilities; NaN where the candidate was not found."""
        read = np.flatnonzero(found.status[:history] == FOUND)  # (≤ H,)
        known = np.flatnonzero(found.status[history:] == FOUND)  # (K,) positions of candidates
        scores = np.full(len(found.status) - history, np.nan, np.float32)  # (C,)
        if not len(known):
            return scores
        model = version.model
        shared: list[HistoryRows] = []

        def read_history() -> None:
            vectors = found.gather(read).vector  # (≤ H, D)
            shared.append(model.history(vectors))

        def rank(start: int, end: int) -> None:
            chosen = known[start:end]
            items = found.gather(chosen + history)  # (K', D), (K', X), (K', F)
            for column, values in overrides:
                items.context[:, column] = values[chosen]
            scores[chosen] = model.rank(items.vector, items.row, items.context, shared[0])

        work = await self.engine.run(rank, len(known), deadline, prepare=read_history)
        exchange.timings.lap("queue", work.started)
        exchange.timings.lap("history", work.prepared)
        exchange.timings.lap("rank", work.finished)
        exchange.timings.skip()  # back to the event loop
        if not np.isfinite(scores[known]).all():
            raise ModelFault("the model answered with a score that is not a number")
        return scores

    def count(self, candidates: Ids, history: Ids, found: FoundItems) -> None:
        status = found.status[len(history) :]
        scored = int((status == FOUND).sum())
        unreadable = int((status == CORRUPT).sum())
        self.metrics.candidates.observe(len(candidates))
        self.metrics.scored.inc(scored)
        if scored < len(candidates):
            self.metrics.unreadable.inc(unreadable)
            self.metrics.unknown.inc(len(candidates) - scored - unreadable)
        if not len(history):
            self.metrics.cold_users.inc()
        self.metrics.history_dropped.inc(int((found.status[: len(history)] != FOUND).sum()))


def context_overrides(asked: ScoreRequest, version: Version) -> Overrides:
    """Columns given by the request, checked against the model's own features."""
    features = version.schema.context
    columns = {feature.name: column for column, feature in enumerate(features)}
    overrides: Overrides = []
    for name, values in asked.context.items():
        if name not in columns:
            known = ", ".join(columns) or "none"
            raise InvalidField.of(
                "context", name, detail=f"no such context feature; there are: {known}"
            )
        if len(values) != len(asked.candidates):
            raise InvalidField.of(
                "context",
                name,
                detail=f"{len(values)} values for {len(asked.candidates)} candidates",
            )
        column, vocabulary = columns[name], features[columns[name]].vocabulary
        array = np.array(values, np.int32)  # (C,)
        beyond = np.flatnonzero(array >= vocabulary)
        if len(beyond):
            most = f"Input should be less than or equal to {vocabulary - 1}"
            raise InvalidField.of("context", name, int(beyond[0]), detail=most)
        overrides.append((column, array))
    return overrides


def best(scores: Floats, k: int | None) -> Positions | None:
    """Positions of the k best, best first; ties keep the order asked; NaN is left out."""
    if k is None:
        return None
    ranked = np.flatnonzero(~np.isnan(scores))
    order = np.argsort(-scores[ranked], kind="stable")
    return ranked[order[:k]]


def respond(
    asked: ScoreRequest,
    version: Version,
    history: Ids,
    candidates: Ids,
    found: FoundItems,
    scores: Floats,
    exchange: Exchange,
) -> bytes:
    """JSON over parallel arrays; NaN is written as null."""
    past, status = found.status[: len(history)], found.status[len(history) :]
    unknown, unreadable = candidates[status == MISSING], candidates[status == CORRUPT]
    damaged_past = history[past == CORRUPT]
    cold = found.cold(len(history))
    chosen = best(scores, asked.top_k)
    degraded = ["items"] * bool(len(unreadable)) + ["history"] * bool(len(damaged_past))
    return orjson.dumps(
        {
            "model_version": version.name,
            "request_id": exchange.request_id,
            "item_ids": candidates if chosen is None else candidates[chosen],
            "scores": scores if chosen is None else scores[chosen],
            "cold_user": len(history) == 0,
            "unknown_items": _distinct(unknown),
            "unreadable_items": _distinct(np.concatenate([unreadable, damaged_past])),
            "cold_items": _distinct(candidates[cold]),
            "unknown_history": _distinct(history[past == MISSING]),
            "degraded": degraded,
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def _distinct(ids: Ids) -> list[int]:
    """Each once, in the order of the request."""
    return list(dict.fromkeys(ids.tolist()))
