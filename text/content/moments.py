"""Solves ridge regressions and principal components from second moments alone.

The moments of rows [1 | x | y], (1 + X + Y)² numbers for each fold, are sums over items: memory
does not grow with a catalogue, and every penalty is tried without its rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FOLDS = 5  # for the penalty; one more is held out
PENALTIES = 10.0 ** np.arange(-6, 2.1, 0.5)  # λ, of the mean variance of an input
LEAST_SHARE = 1e-10  # of the largest variance: a direction of less is none


@dataclass(frozen=True, slots=True)
class Ridge:
    """A regression y ≈ x @ weight + bias."""

    weight: Floats  # (X, Y)
    bias: Floats  # (Y,)
    penalty: float
    r2: float  # of the fold that neither penalty nor weights have seen


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments of rows [1 | x | y]: (1 + X + Y, 1 + X + Y)."""

    gram: Floats
    inputs: int  # X

    @property
    def count(self) -> float:
        return float(self.gram[0, 0])

    @property
    def means(self) -> Floats:
        """(X + Y,)"""
        means: Floats = self.gram[0, 1:] / self.count
        return means

    @property
    def covariance(self) -> Floats:
        """(X + Y, X + Y)"""
        covariance: Floats = self.gram[1:, 1:] / self.count - np.outer(self.means, self.means)
        return covariance

    def solved(self, penalties: NDArray[np.float64]) -> list[tuple[Floats, Floats]]:
        """Return weight and bias for each penalty; the bias is not penalised."""
        x, mean, covariance = self.inputs, self.means, self.covariance
        variances, axes = np.linalg.eigh(covariance[:x, :x])
        turned = axes.T @ covariance[:x, x:]  # (X, Y)
        unit = float(np.mean(np.maximum(variances, 0))) or 1.0
        found = []
        for penalty in penalties:
            weight = axes @ (turned / (np.maximum(variances, 0) + penalty * unit)[:, None])
            found.append((weight, mean[x:] - mean[:x] @ weight))
        return found

    def squares(self, weight: Floats, bias: Floats) -> float:
        """Return the sum of (y − x @ weight − bias)² over the rows, from their moments."""
        residual = np.concatenate([-bias[None], -weight, np.eye(len(bias))])  # (1 + X + Y, Y)
        return float(np.sum(residual * (self.gram @ residual)))

    def r2(self, solved: tuple[Floats, Floats], mean: Floats) -> float:
        """Return 1 − squares of a solution over those of a mean (Y,)."""
        total = self.squares(np.zeros((self.inputs, len(mean))), mean)
        return 1 - self.squares(*solved) / total if total > 0 else 0.0


def ridge(folds: Floats, inputs: int) -> Ridge:
    """Regress y on x; ``folds`` (FOLDS + 1, 1 + X + Y, 1 + X + Y) are moments of disjoint items.

    The penalty is that of the best R² over the first folds, each left out in turn; the last one
    measures a solution of the others. The weights are of all.
    """
    seen = folds[:FOLDS].sum(0)
    scores = np.zeros(len(PENALTIES))
    for fold in folds[:FOLDS]:
        others, own = Moments(seen - fold, inputs), Moments(fold, inputs)
        mean = others.means[inputs:]
        scores += [own.r2(solved, mean) for solved in others.solved(PENALTIES)]
    penalty = PENALTIES[[int(scores.argmax())]]
    others = Moments(seen, inputs)
    r2 = Moments(folds[FOLDS], inputs).r2(others.solved(penalty)[0], others.means[inputs:])
    ((weight, bias),) = Moments(folds.sum(0), inputs).solved(penalty)
    return Ridge(weight, bias, float(penalty[0]), r2)


@dataclass(frozen=True, slots=True)
class Components:
    """Principal components, scaled by one factor to a mean variance of 1: x @ weight + bias."""

    weight: Floats  # (X, C)
    bias: Floats  # (C,)
    explained: float  # share of the variance

    @classmethod
    def of(cls, moments: Moments, size: int) -> Components:
        """Compute the ``size`` first components of x. Raises ValueError where x has fewer."""
        x, mean = moments.inputs, moments.means
        variances, axes = np.linalg.eigh(moments.covariance[:x, :x])
        variances, axes = variances[::-1], axes[:, ::-1]
        real = int((variances > LEAST_SHARE * variances[0]).sum())
        if real < size:
            raise ValueError(f"the vectors vary in {real} directions, and {size} are asked for")
        first = axes[:, :size]
        largest = np.abs(first).argmax(0)
        signs = np.sign(first[largest, np.arange(size)])  # an axis has no direction of its own
        weight = first * signs / np.sqrt(variances[:size].mean())
        return cls(weight, -mean[:x] @ weight, float(variances[:size].sum() / variances.sum()))
