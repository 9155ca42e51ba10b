"""Draws a study as PNG: validation AUC by trial and by each number that varies."""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import accumulate

from matplotlib import pyplot as plt

from training.evaluation.plots import BLUE, GREY, ORANGE, png
from training.tuning.trials_table import TrialRow


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
    return png(figure)
