"""Finds items whose numbers are so large that scores overflow float32.

A quadratic layer squares large values, so a few of them take finite but huge numbers beyond
float32, of a candidate or of a history item. Such items are found by scoring them with typical
ones, in both roles. Only items far larger than typical ones are scored; the rest cost one
comparison.

N items, D item-vector width.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from feature_store.schema import FeatureSchema
from model_export.bundle.vectors import Candidates, Floats, HistoryRows, ItemVectors, Mask

PROBES = 16  # typical candidates
SENSELESS_LOGIT = 1e15  # far beyond any meaningful logit, and far from overflow
MOST_SCALE = 2.0**64
FINE = 2.0**0.25  # step of scale; the logit may grow by 4,096 per step, in four layers


class Ranker(Protocol):
    """The part of ``FoldedModel`` that is used here."""

    schema: FeatureSchema

    def history(self, vector: Floats) -> HistoryRows: ...
    def logits(self, items: Candidates, history: HistoryRows) -> Floats: ...


class Extremes:
    """Overflow test of one model, which is passed to each call: a reference cycle would keep an
    unloaded model until the garbage collector runs."""

    def __init__(self, model: Ranker, typical: ItemVectors) -> None:
        """``typical``: items like those of the training data."""
        self._typical = typical
        self._candidates = typical.part(0, PROBES)
        self._history = model.history(typical.vector[: model.schema.history_length])
        self.tried_beyond = self._sensible_scale(model) * float(
            magnitude(typical.vector).max(initial=0)
        )

    def scorable(self, model: Ranker, items: ItemVectors) -> Mask:
        """(N,): which items give finite scores with typical ones."""
        fine = np.ones(len(items), np.bool_)
        for part in (items.vector, items.row):
            fine &= np.isfinite(part).all(axis=1)
        tried = np.flatnonzero(fine & (magnitude(items.vector) > self.tried_beyond))
        if len(tried):
            logit = model.logits(items.take(tried), self._history)
            tried, failed = tried[np.isfinite(logit)], tried[~np.isfinite(logit)]
            fine[failed] = fine[tried[~self._readable(model, items.vector[tried])]] = False
        return fine

    def _readable(self, model: Ranker, vector: Floats) -> Mask:
        """(N, D) -> (N,): which of them, as history, give typical candidates finite scores."""
        if not len(vector) or self._after(model, vector):
            return np.ones(len(vector), np.bool_)
        if len(vector) == 1:
            return np.zeros(1, np.bool_)
        half = len(vector) // 2
        return np.concatenate(
            [self._readable(model, vector[:half]), self._readable(model, vector[half:])]
        )

    def _after(self, model: Ranker, vector: Floats) -> bool:
        logit = model.logits(self._candidates, model.history(vector))
        return bool(np.isfinite(logit).all())

    def _sensible_scale(self, model: Ranker) -> float:
        """Find the largest factor on typical items that keeps logits meaningful."""
        if not self._is_sensible(model, 1.0):
            return 0.0
        scale = 1.0
        for step in (2.0, FINE):
            while scale < MOST_SCALE and self._is_sensible(model, step * scale):
                scale *= step
        return scale

    def _is_sensible(self, model: Ranker, scale: float) -> bool:
        typical, by = self._typical, np.float32(scale)
        vector = typical.vector * by
        history = model.history(vector[: model.schema.history_length])
        logit = model.logits(ItemVectors(vector, typical.row * by, typical.context), history)
        return bool((np.abs(logit) <= SENSELESS_LOGIT).all())  # NaN is not


def magnitude(vector: Floats) -> Floats:
    """(N, D) -> (N,): the largest number of each."""
    largest: Floats = np.maximum(vector.max(axis=1, initial=0), -vector.min(axis=1, initial=0))
    return largest
