"""Compares texts by character n-grams: tf-idf with cosine, the peer without training."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LENGTHS = (3, 4)  # characters of an n-gram


class TfIdf:
    """Weighs n-grams within words by their rarity among the very texts that are compared."""

    name = "tf-idf"

    def similarity(self, queries: Sequence[str], documents: Sequence[str]) -> NDArray[np.float32]:
        """Return cosines (Q, D)."""
        of_queries, of_documents = _weighted(queries, documents)
        postings: dict[str, tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))
        for row, weights in enumerate(of_documents):
            for gram, weight in weights.items():
                rows, values = postings[gram]
                rows.append(row)
                values.append(weight)
        arrays = {
            gram: (np.asarray(rows), np.asarray(values, np.float32))
            for gram, (rows, values) in postings.items()
        }
        scores = np.zeros((len(queries), len(documents)), np.float32)
        for score, weights in zip(scores, of_queries, strict=True):
            for gram, weight in weights.items():
                if gram in arrays:
                    found, factors = arrays[gram]
                    score[found] += weight * factors
        return scores

    def pairwise(self, first: Sequence[str], second: Sequence[str]) -> NDArray[np.float32]:
        """Return cosines (N,)."""
        pairs = zip(*_weighted(first, second), strict=True)
        return np.asarray(
            [sum(weight * b.get(gram, 0.0) for gram, weight in a.items()) for a, b in pairs],
            np.float32,
        )

    def vectors(self, texts: Sequence[str]) -> None:
        """Have none: they would have a number for each n-gram."""


def grams(text: str) -> Counter[str]:
    """Count the n-grams within words, the spaces around them included."""
    return Counter(
        padded[at : at + length]
        for word in text.lower().split()
        for padded in (f" {word} ",)
        for length in LENGTHS
        for at in range(max(1, len(padded) - length + 1))
    )


def _weighted(
    first: Sequence[str], second: Sequence[str]
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    counts = [grams(text) for text in (*first, *second)]
    documents = Counter(gram for own in counts for gram in own)
    weighted = []
    for own in counts:
        weights = {
            gram: count * (math.log((1 + len(counts)) / (1 + documents[gram])) + 1)
            for gram, count in own.items()
        }
        norm = math.sqrt(sum(weight * weight for weight in weights.values())) or 1.0
        weighted.append({gram: weight / norm for gram, weight in weights.items()})
    return weighted[: len(first)], weighted[len(first) :]
