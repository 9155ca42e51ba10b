"""Computes metrics of probabilities: ranking (AUC) and calibration (logloss, ECE)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32] | NDArray[np.float64]
Labels = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.bool_]
Users = NDArray[np.int64]
Weights = NDArray[np.float64]  # how many rows each row stands for


def auc(scores: Scores, labels: Labels) -> float:
    """Probability that a random positive outranks a random negative; a tie counts half.

    NaN when one of the classes is absent.
    """
    positive = np.asarray(labels, np.float64) > 0.5
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return float("nan")
    rank_sum = _average_ranks(np.asarray(scores, np.float64))[positive].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def _average_ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """1-based ranks; equal scores share the mean of theirs."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: NDArray[np.float64] = (last - counts + 1 + last) / 2
    return mean[inverse]


def grouped_auc(scores: Scores, labels: Labels, users: Users) -> tuple[float, int]:
    """Per-user AUC, weighted by the user's rows, and how many users had both classes."""
    order = np.argsort(users, kind="stable")
    starts = np.flatnonzero(np.diff(users[order], prepend=users[order[:1]] - 1))
    total, weight, counted = 0.0, 0, 0
    for rows in np.split(order, starts[1:]):
        value = auc(scores[rows], labels[rows])
        if not np.isnan(value):
            total, weight, counted = total + value * len(rows), weight + len(rows), counted + 1
    return (total / weight if weight else float("nan")), counted


def logloss(probabilities: Scores, labels: Labels, weights: Weights | None = None) -> float:
    """Mean binary cross-entropy in nats; probabilities are clipped at 1e-12."""
    p = np.clip(np.asarray(probabilities, np.float64), 1e-12, 1 - 1e-12)
    y = np.asarray(labels, np.float64)
    return float(np.average(-(y * np.log(p) + (1 - y) * np.log1p(-p)), weights=weights))


@dataclass(frozen=True, slots=True)
class Reliability:
    """Equal-count bins, lowest predictions first."""

    predicted: NDArray[np.float64]  # (bins,) mean probability
    observed: NDArray[np.float64]  # (bins,) share of positives
    count: NDArray[np.float64]  # (bins,) rows, or the sum of their weights

    @property
    def ece(self) -> float:
        """Expected calibration error: mean |predicted − observed|, weighted by count."""
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.count))


def reliability(
    probabilities: Scores, labels: Labels, bins: int = 20, weights: Weights | None = None
) -> Reliability:
    """Compute bins of (nearly) equal count of rows."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels, np.float64)
    w = np.ones_like(p) if weights is None else weights
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return Reliability(
        np.array([np.average(p[part], weights=w[part]) for part in parts]),
        np.array([np.average(y[part], weights=w[part]) for part in parts]),
        np.array([w[part].sum() for part in parts]),
    )
