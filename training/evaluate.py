"""Says how good a checkpoint is on held-out rows: ranking, calibration, and for whom."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.dataset import Rows
from training.metrics import auc, grouped_auc, logloss, reliability

HISTORY_EDGES = (0, 1, 5, 9, 17, 33, 65, 129, 257, 513, 1025)  # lengths [edge, next edge)
Mask = NDArray[np.bool_]


def evaluate(scores: NDArray[np.float32], rows: Rows, trained_on: Rows) -> dict[str, Any]:
    """Every figure, as JSON knows it (a figure that cannot be had is None).

    scores (N,) probabilities for ``rows``; ``trained_on`` tells warm targets from cold ones.
    """
    label = rows.label
    per_user, users = grouped_auc(scores, label, rows.user)
    return {
        **_figures(scores, label),
        "grouped_auc": _known(per_user),
        "users_with_both_classes": users,
        "slices": [
            {"slice": name, **_figures(scores[mask], label[mask])}
            for name, mask in _slices(rows, trained_on)
            if mask.any()
        ],
    }


def share_of_the_possible(value: float, best: float) -> float:
    """(AUC − 0.5) / (best AUC − 0.5): 0 is chance, 1 is what the data's own generator reaches."""
    return (value - 0.5) / (best - 0.5)


def best_auc(data: Path) -> float | None:
    """What ``synthesize`` wrote down of its own truth; None for data that were not synthesised."""
    truth = data / "truth.json"
    return float(json.loads(truth.read_text())["best_auc_valid"]) if truth.exists() else None


def _figures(scores: NDArray[np.float32], label: NDArray[np.float32]) -> dict[str, Any]:
    return {
        "rows": len(label),
        "positives": int((label > 0.5).sum()),
        "auc": _known(auc(scores, label)),
        "logloss": logloss(scores, label),
        "ece": reliability(scores, label).ece,
    }


def _slices(rows: Rows, trained_on: Rows) -> Iterator[tuple[str, Mask]]:
    warm = np.isin(rows.target, np.unique(trained_on.target))
    yield "warm item", warm
    yield "cold item", ~warm
    length = (np.asarray(rows.history) != 0).sum(axis=1)
    for low, high in zip(HISTORY_EDGES, (*HISTORY_EDGES[1:], np.inf), strict=True):
        name = f"history {low}" if high == low + 1 else f"history {low}–{high - 1:.0f}"
        yield name, (length >= low) & (length < high)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
