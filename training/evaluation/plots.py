"""Draws the learning curve and the reliability plot as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from training.evaluation.metrics import Reliability

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
    return png(figure)


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
    return png(figure)


def png(figure: Figure) -> bytes:
    """Render the figure and close it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    plt.close(figure)
    return content.getvalue()
