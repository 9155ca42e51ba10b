"""Reduces texts to a few numbers by tf-idf and a truncated singular value decomposition."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from text.evaluate.tf_idf import grams

Floats = NDArray[np.float32]
MOST_GRAMS = 20_000  # the most frequent; rarer ones hardly show in the first components
ITERATIONS, SPARE = 6, 32  # of the subspace; directions beyond those kept


class TfIdfComponents:
    """First right singular vectors of the tf-idf vectors of texts: latent semantic analysis."""

    def __init__(self, place: dict[str, int], rarity: Floats, mean: Floats, axes: Floats) -> None:
        self._place, self._rarity = place, rarity  # n-gram -> column; (G,)
        self._mean, self._axes = mean, axes  # (G,), (G, size)

    @classmethod
    def fit(cls, texts: Sequence[str], size: int) -> Self:
        """Fit to texts; contents have mean 0 and a mean variance of 1 over all numbers.

        Raises ValueError for fewer texts or n-grams than ``size``.
        """
        counts = Counter(gram for text in texts for gram in grams(text))
        common = [gram for gram, count in counts.most_common(MOST_GRAMS) if count > 1]
        if min(len(common), len(texts) - 1) < size:
            raise ValueError(
                f"{len(texts)} texts with {len(common)} n-grams in common: {size} "
                "components are too many"
            )
        rarity = [math.log((1 + len(texts)) / (1 + counts[gram])) + 1 for gram in common]
        place = {gram: column for column, gram in enumerate(common)}
        nothing = np.zeros((0, 0), np.float32)
        fitted = cls(place, np.array(rarity, np.float32), nothing[0:0].ravel(), nothing)
        weighted = fitted._weighted(texts)
        fitted._mean = weighted.mean(0)
        weighted -= fitted._mean
        random = np.random.default_rng(0)
        width = min(size + SPARE, len(texts), len(common))
        axes = random.standard_normal((len(common), width)).astype(np.float32)
        for _ in range(ITERATIONS):  # subspace iteration
            axes = np.linalg.qr(weighted.T @ (weighted @ axes))[0]
        _, _, turned = np.linalg.svd(weighted @ axes, full_matrices=False)
        first: Floats = axes @ turned[:size].T
        fitted._axes = first / np.float32(np.sqrt(((weighted @ first) ** 2).mean()))
        return fitted

    def content(self, texts: Sequence[str]) -> Floats:
        """(N, size)"""
        centred = self._weighted(texts) - self._mean
        found: Floats = (centred @ self._axes).astype(np.float32, copy=False)
        return found

    def _weighted(self, texts: Sequence[str]) -> Floats:
        """(N, G), each of length 1."""
        rows = np.zeros((len(texts), len(self._place)), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for gram, count in grams(text).items():
                if (column := self._place.get(gram)) is not None:
                    row[column] = count
        rows *= self._rarity
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        return rows
