"""Evaluates scores on held-out rows: ranking and calibration, overall and by slice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.rows import Rows
from training.evaluation.metrics import auc, grouped_auc, logloss, reliability

HISTORY_EDGES = (0, 1, 5, 9, 17, 33, 65, 129, 257, 513, 1025)  # lengths [edge, next edge)
Mask = NDArray[np.bool_]


def evaluate(scores: NDArray[np.float32], rows: Rows, trained_on: Rows | None) -> dict[str, Any]:
    """Compute all figures for JSON; undefined ones are None.

    scores (N,): probabilities for ``rows``; targets in ``trained_on`` are warm, others cold, and
    its users known, others new; without it there are no such slices.
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
    """(AUC − 0.5) / (best AUC − 0.5): 0 is chance, 1 the generating probability."""
    return (value - 0.5) / (best - 0.5)


def best_auc(data: Path, figure: str = "best_auc_valid") -> float | None:
    """Read a best AUC of synthetic data; None for other data, or another ``truth.json``."""
    try:
        return float(json.loads((data / "truth.json").read_bytes())[figure])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _figures(scores: NDArray[np.float32], label: NDArray[np.float32]) -> dict[str, Any]:
    return {
        "rows": len(label),
        "positives": int((label > 0.5).sum()),
        "auc": _known(auc(scores, label)),
        "logloss": logloss(scores, label),
        "ece": reliability(scores, label).ece,
    }


def _slices(rows: Rows, trained_on: Rows | None) -> Iterator[tuple[str, Mask]]:
    if trained_on is not None:
        warm = np.isin(rows.target, np.unique(trained_on.target))
        yield "warm item", warm
        yield "cold item", ~warm
        if rows.schema.user:
            known = np.isin(rows.user, np.unique(trained_on.user))
            yield "known user", known
            yield "new user", ~known
    length = (np.asarray(rows.history) != 0).sum(axis=1)
    for low, high in zip(HISTORY_EDGES, (*HISTORY_EDGES[1:], np.inf), strict=True):
        name = f"history {low}" if high == low + 1 else f"history {low}–{high - 1:.0f}"
        yield name, (length >= low) & (length < high)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
