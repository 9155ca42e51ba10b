"""Draws the learning curve and the reliability plot as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence, Set
from itertools import accumulate
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from training.metrics import Reliability
from training.trials_table import TrialRow

BLUE, ORANGE, GREY = "#1f5fbf", "#d9730d", "#9aa0a6"


def learning_curve(epochs: Sequence[dict[str, Any]], best_epoch: int) -> bytes:
    """Plot loss and validation AUC by epoch, with the best epoch marked."""
    number = [e["epoch"] for e in epochs]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    left.plot(number, [e["train_loss"] for e in epochs], color=BLUE, marker="o", label="training")
    left.plot(
        number, [e["valid_logloss"] for e in epochs], color=ORANGE, marker="o", label="validation"
    )
    left.set(xlabel="epoch", ylabel="logloss (nats)", title="Loss")
    left.legend(frameon=False)
    right.plot(number, [e["valid_auc"] for e in epochs], color=ORANGE, marker="o")
    right.set(xlabel="epoch", ylabel="AUC", title="Validation AUC")
    best = next(e["valid_auc"] for e in epochs if e["epoch"] == best_epoch)
    right.annotate(
        f"kept: {best:.4f}",
        (best_epoch, best),
        xytext=(0, -24),
        textcoords="offset points",
        ha="center",
        arrowprops={"arrowstyle": "->", "color": GREY},
    )
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(y=0.2)
    return _png(figure)


def reliability_plot(plots: dict[str, Reliability]) -> bytes:
    """Plot observed click rate against predicted probability."""
    figure, axes = plt.subplots(figsize=(4.4, 4.4), layout="constrained")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    for (name, plot), colour in zip(plots.items(), (BLUE, ORANGE), strict=False):
        axes.plot(
            plot.predicted,
            plot.observed,
            marker="o",
            markersize=4,
            color=colour,
            label=f"{name} (ECE {plot.ece:.4f})",
        )
    axes.set(
        xlabel="predicted probability",
        ylabel="observed click rate",
        xlim=(0, 1),
        ylim=(0, 1),
        aspect="equal",
    )
    axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def study_plot(rows: Sequence[TrialRow], names: Sequence[str], logarithmic: Set[str]) -> bytes:
    """Plot validation AUC by trial, with the best so far, and by each number that varies."""
    columns = min(3, len(names) + 1)
    lines = -(-(len(names) + 1) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(4.2 * columns, 3.2 * lines), squeeze=False, layout="constrained"
    )
    first, *others = grid.flat
    for name, axes in zip(("", *names), (first, *others), strict=False):
        for state, colour in (("complete", BLUE), ("pruned", GREY), ("diverged", ORANGE)):
            shown = [r for r in rows if r.state == state and r.valid_auc is not None]
            at = [r.numbers[name] if name else r.number for r in shown]
            at = [str(x) if isinstance(x, bool | str) else x for x in at]
            axes.scatter(at, [r.valid_auc for r in shown], s=18, color=colour, label=state)
        if name in logarithmic:
            axes.set_xscale("log")
        elif all(type(r.numbers.get(name, 0)) is int for r in rows):
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel=name or "trial", ylabel="validation AUC")
        axes.spines[["top", "right"]].set_visible(False)
    scores = [r.score if r.state == "complete" else -1.0 for r in rows]
    best = [(r.number, b) for r, b in zip(rows, accumulate(scores, max), strict=True) if b >= 0]
    first.step(*zip(*best, strict=True) if best else ([], []), where="post", color=BLUE)
    first.legend(frameon=False)
    for axes in others[len(names) :]:
        axes.set_visible(False)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    plt.close(figure)
    return content.getvalue()
