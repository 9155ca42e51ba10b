"""``python -m training evaluate``: a checkpoint's figures on held-out rows."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from training.cli.console import (
    AsJson,
    Cache,
    TimeUnit,
    Users,
    exit_on_error,
    progress,
    screen,
)
from training.output import writing


def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint folder.")],
    data: Annotated[Path, typer.Argument(help="Folder with train, valid, item_info parquet.")],
    plot: Annotated[
        Path | None, typer.Option(help="Reliability plot; default CHECKPOINT/reliability.png.")
    ] = None,
    users: Users = None,
    cache: Cache = None,
    unit: TimeUnit = None,
    as_json: AsJson = False,
) -> None:
    """Measure AUC, logloss, per-user AUC and calibration on DATA/valid.parquet, also by slice."""
    from training import checkpoint
    from training.data.dataset import open_held_out
    from training.data.leakage import static_levels
    from training.evaluation.evaluate import best_auc, share_of_the_possible
    from training.evaluation.evaluate import evaluate as figures_of
    from training.evaluation.metrics import reliability
    from training.evaluation.plots import reliability_plot
    from training.loop.fit import predict

    with exit_on_error(), progress() as on_progress:
        network = checkpoint.load(folder)
        index = folder / checkpoint.USER_INDEX
        valid, train = open_held_out(data, network.schema, on_progress, cache, users, index)
        scores = predict(network, valid, on_progress=on_progress)
        best = best_auc(data)
        # Synthetic levels are of a popularity that was drawn, and count no clicks.
        static = static_levels(data, valid, train, unit) if best is None else []
    figures = figures_of(scores, valid, train)
    figures["static_levels"] = [dataclasses.asdict(level) for level in static]
    for level in static:
        screen.print(f"warning: {level}", markup=False)
    if best is not None:
        figures["best_auc"] = best
        if figures["auc"] is not None:
            figures["share_of_the_possible"] = share_of_the_possible(figures["auc"], best)
    image = reliability_plot({"valid": reliability(scores, valid.label)})
    if as_json:
        print(json.dumps(figures), flush=True)
    else:
        show(figures)
    path = plot or folder / "reliability.png"  # last: the folder may be another user's
    with exit_on_error(), writing(path):
        path.write_bytes(image)


def show(figures: dict[str, Any]) -> None:
    """Print the figures of all rows and of each slice as a table."""
    table = Table("slice", "rows", "positives", "AUC", "logloss", "ECE")
    for part in ({"slice": "all", **figures}, *figures["slices"]):
        value = "–" if part["auc"] is None else f"{part['auc']:.4f}"
        numbers = (f"{part['logloss']:.4f}", f"{part['ece']:.4f}")
        table.add_row(part["slice"], f"{part['rows']:,}", f"{part['positives']:,}", value, *numbers)
    screen.print(table)
    if figures["grouped_auc"] is not None:
        users = figures["users_with_both_classes"]
        screen.print(f"per-user AUC {figures['grouped_auc']:.4f} over {users:,} users")
    if "share_of_the_possible" in figures:
        screen.print(
            f"best AUC any model could reach {figures['best_auc']:.4f}; "
            f"(AUC − 0.5) / (best − 0.5) = {figures['share_of_the_possible']:.3f}"
        )
