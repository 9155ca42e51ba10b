"""Platt scaling: calibrates a network's logits to click rates.

sigmoid(slope·logit + intercept), fitted by maximum likelihood on held-out rows; being affine it
folds into the last layer at no cost. If only a share r of the negatives was kept in the data, the
odds there are 1/r times the true ones, so ln r is added to the intercept; the fit needs no weights.

Fitted on one half of the users, evaluated on the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import Calibration
from model_export.quality.held_out import HeldOut
from training.data.rows import Rows
from training.evaluation.metrics import Reliability, logloss, reliability
from training.evaluation.plots import reliability_plot
from training.qin import QIN

BATCH = 4096
STEPS, HALVINGS, SETTLED = 100, 50, 1e-10
MOST_SLOPE = 100.0  # a steeper one means that the labels are separated without error
PICTURE = "reliability.png"
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A calibration and the picture of its fit."""

    calibration: Calibration
    picture: bytes  # PNG: observed against predicted rates, before and after


def calibrate(network: QIN, held_out: HeldOut, negative_sampling_rate: float = 1.0) -> Calibrated:
    """Fit Platt scaling to ``network`` (eval mode). Raises BundleError if no fit is possible."""
    rows = held_out.rows
    logit, label = network_logits(network, rows), np.asarray(rows.label, np.float64)
    fitted, judged = _halves(rows, held_out.name)
    slope, intercept = platt(logit[fitted], label[fitted])
    intercept += math.log(negative_sampling_rate)

    y = label[judged]
    weights = np.where(y > 0.5, 1.0, 1 / negative_sampling_rate)
    before, after = _sigmoid(logit[judged]), _sigmoid(slope * logit[judged] + intercept)
    plots: dict[str, Reliability] = {
        "before": reliability(before, y, weights=weights),
        "after": reliability(after, y, weights=weights),
    }
    calibration = Calibration(
        slope=slope,
        intercept=intercept,
        negative_sampling_rate=negative_sampling_rate,
        data=held_out.name,
        rows=int(fitted.sum()),
        judged_rows=int(judged.sum()),
        ece_before=plots["before"].ece,
        ece_after=plots["after"].ece,
        logloss_before=logloss(before, y, weights),
        logloss_after=logloss(after, y, weights),
    )
    return Calibrated(calibration, reliability_plot(plots))


def network_logits(network: QIN, rows: Rows) -> Floats:
    """(N,) logits of the PyTorch network, in row order."""
    parts = np.array_split(np.arange(len(rows)), -(-len(rows) // BATCH))
    with torch.inference_mode():
        return np.concatenate([network(rows.batch(part)).double().numpy() for part in parts])


def platt(logit: Floats, label: Floats) -> tuple[float, float]:
    """Slope and intercept of maximum likelihood, by Newton's method from (1, 0).

    Raises BundleError unless the slope is positive and bounded: the ranking must stay.
    """
    theta, design = np.array([1.0, 0.0]), np.stack([logit, np.ones_like(logit)], 1)  # (N, 2)
    loss = _loss(design @ theta, label)
    for _ in range(STEPS):
        p = _sigmoid(design @ theta)
        gradient = design.T @ (p - label) / len(label)
        curvature = (design * (p * (1 - p))[:, None]).T @ design / len(label)
        step = np.linalg.solve(curvature + 1e-12 * np.eye(2), gradient)
        for _ in range(HALVINGS):  # backtracking line search
            if _loss(design @ (theta - step), label) <= loss:
                break
            step = step / 2
        theta, loss = theta - step, _loss(design @ (theta - step), label)
        if np.abs(step).max() < SETTLED or abs(theta[0]) > MOST_SLOPE:
            break
    slope, intercept = float(theta[0]), float(theta[1])
    if not 0 < slope <= MOST_SLOPE or not math.isfinite(intercept):  # NaN is neither
        raise BundleError(
            f"calibration: the best slope is {slope:.3g}, so these rows allow no calibration: the "
            "network ranks them inversely, or without any error; use more rows, and rows that it "
            "was not trained on"
        )
    return slope, intercept


def _halves(rows: Rows, name: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(N,) rows for the fit and rows for evaluation, split by user."""
    users, number = np.unique(rows.user, return_inverse=True)
    fitted = np.random.default_rng(0).permutation(len(users))[number] % 2 == 0
    for half in (fitted, ~fitted):
        clicks = float(rows.label[half].sum())
        if not 0 < clicks < half.sum():
            raise BundleError(
                f"calibration: {name}: half of its users have labels of one class only; use rows "
                "of more users"
            )
    return fitted, ~fitted


def _loss(logit: Floats, label: Floats) -> float:
    """Mean binary cross-entropy of logits (N,)."""
    return float((np.logaddexp(0, logit) - label * logit).mean())


def _sigmoid(logit: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(logit, -700, 700)))
