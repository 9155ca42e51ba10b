"""Computes Spearman's ρ, accuracy@1, nDCG@10 and the v-measure, as MTEB defines them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


def ranks(values: Floats) -> NDArray[np.float64]:
    """Return ranks from 0; equal values have the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means = ends - (counts + 1) / 2
    shared: NDArray[np.float64] = means[place]
    return shared


def spearman(first: Floats, second: Floats) -> float:
    """Return the correlation of ranks. Undefined where all values of a side are equal: NaN."""
    a, b = ranks(first), ranks(second)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 0 else float("nan")


def accuracy_at_1(scores: Floats, relevant: Sequence[Ints]) -> float:
    """Return the share of queries (rows) whose best document (column) is relevant."""
    best = scores.argmax(1)
    return float(np.mean([top in own for top, own in zip(best, relevant, strict=True)]))


def ndcg(scores: Floats, relevant: Sequence[Ints], depth: int = 10) -> float:
    """Return the mean of DCG@depth / ideal DCG@depth, with relevance 0 or 1."""
    depth = min(depth, scores.shape[1])
    top = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
    top = np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, 1), 1, "stable"), 1)
    discounts = 1 / np.log2(np.arange(2, depth + 2))
    values = []
    for found, own in zip(top, relevant, strict=True):
        ideal = discounts[: len(own)].sum()
        values.append(float((np.isin(found, own) * discounts).sum() / ideal))
    return float(np.mean(values))


def v_measure(labels: Sequence[str], clusters: Ints) -> float:
    """Return the harmonic mean of homogeneity and completeness (Rosenberg & Hirschberg 2007)."""
    _, label = np.unique(np.asarray(labels), return_inverse=True)
    _, cluster = np.unique(clusters, return_inverse=True)
    joint = np.zeros((label.max() + 1, cluster.max() + 1))
    np.add.at(joint, (label, cluster), 1 / len(label))
    of_label, of_cluster = joint.sum(1), joint.sum(0)
    cells = joint > 0
    information = float(
        (joint[cells] * np.log(joint[cells] / np.outer(of_label, of_cluster)[cells])).sum()
    )
    homogeneity = information / _entropy(of_label) if _entropy(of_label) > 0 else 1.0
    completeness = information / _entropy(of_cluster) if _entropy(of_cluster) > 0 else 1.0
    total = homogeneity + completeness
    return 2 * homogeneity * completeness / total if total > 0 else 0.0


def _entropy(shares: Floats) -> float:
    own = shares[shares > 0]
    return float(-(own * np.log(own)).sum())


def k_means(
    vectors: NDArray[np.float32], clusters: int, seed: int, iterations: int = 30
) -> NDArray[np.int64]:
    """Assign unit vectors (N, D) to clusters by cosine: k-means++ starts, then Lloyd's steps."""
    generator = np.random.default_rng(seed)
    centres = vectors[_starts(vectors, clusters, generator)]
    assigned = np.full(len(vectors), -1, np.int64)
    for _ in range(iterations):
        nearest = (vectors @ centres.T).argmax(1)
        if (nearest == assigned).all():
            break
        assigned = nearest
        sums = np.zeros_like(centres)
        np.add.at(sums, assigned, vectors)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(norms > 0, sums / np.maximum(norms, 1e-30), centres)
    return assigned


def _starts(
    vectors: NDArray[np.float32], clusters: int, generator: np.random.Generator
) -> list[int]:
    chosen = [int(generator.integers(len(vectors)))]
    distance = np.full(len(vectors), np.inf)
    while len(chosen) < clusters:
        near = np.maximum(0.0, 1.0 - vectors @ vectors[chosen[-1]])
        distance = np.minimum(distance, near.astype(np.float64))
        total = distance.sum()
        if total <= 0:
            chosen.append(int(generator.integers(len(vectors))))
        else:
            chosen.append(int(generator.choice(len(vectors), p=distance / total)))
    return chosen
