"""AUC, logloss and calibration of two versions, from counts by score: memory does not grow."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import Ids
from model_export.bundle.vectors import Floats

SHIFT = 12  # bits of a float32 that are left out: bins 0.05 % wide
BINS = (int(np.float32(1.0).view(np.uint32)) >> SHIFT) + 1
CURVE = 10  # of the calibration curve
LEAST = 1e-7  # of a probability, for its logarithm

Counts = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(slots=True)
class Labelled:
    """What scores say of labels."""

    by_score: Counts = field(default_factory=lambda: np.zeros((2, BINS), np.int64))  # label, bin
    loss: float = 0.0
    curve: Doubles = field(default_factory=lambda: np.zeros((3, CURVE)))  # rows, predicted, clicked

    def add(self, scores: Floats, labels: Ids) -> None:
        """Add scores (N,) in 0 … 1 and labels (N,) of 0 and 1."""
        bins = np.ascontiguousarray(scores, np.float32).view(np.uint32) >> SHIFT
        for label in (0, 1):
            chosen = bins[labels == label]
            self.by_score[label] += np.bincount(chosen, minlength=BINS)
        sure = np.clip(scores.astype(np.float64), LEAST, 1 - LEAST)
        self.loss -= float(np.log(np.where(labels == 1, sure, 1 - sure)).sum())
        place = np.minimum((sure * CURVE).astype(np.int64), CURVE - 1)
        for row, weights in enumerate((np.ones(len(sure)), sure, labels)):
            self.curve[row] += np.bincount(place, weights, CURVE)

    @property
    def rows(self) -> int:
        return int(self.by_score.sum())

    @property
    def auc(self) -> float | None:
        """Probability that a click scores above another row, ties half; None without either."""
        no, yes = self.by_score
        pairs = int(no.sum()) * int(yes.sum())
        if not pairs:
            return None
        below = np.cumsum(no) - no
        return float((yes * (below + no / 2)).sum() / pairs)

    def facts(self) -> dict[str, float | None]:
        """AUC, logloss, mean prediction, click rate, and the expected calibration error."""
        rows, (_, predicted, clicked) = max(1, self.rows), self.curve
        return {
            "auc": self.auc,
            "logloss": self.loss / rows,
            "mean_score": float(predicted.sum()) / rows,
            "click_rate": float(clicked.sum()) / rows,
            "calibration_error": float(np.abs(predicted - clicked).sum()) / rows,
        }

    def points(self) -> list[tuple[float, float, int]]:
        """Mean prediction, click rate and rows of each bin that has rows."""
        return [(float(p / n), float(c / n), int(n)) for n, p, c in self.curve.T.tolist() if n]
