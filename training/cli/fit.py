"""``python -m training fit``: a training run."""

from __future__ import annotations

import json
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from training.cli import recipe as recipes
from training.cli.console import (
    AsJson,
    Cache,
    SchemaFile,
    Users,
    exit_on_error,
    given,
    progress,
    read_schema,
    screen,
)
from training.cli.recipe import Preset, RecipeFile, Settings
from training.loop.epoch_log import TensorBoard, no_log
from training.recipe_files import resolve


def fit(
    data: Annotated[Path, typer.Argument(help="Folder with train, valid, item_info parquet.")],
    out: Annotated[Path, typer.Option(help="Checkpoint folder to write.")],
    preset: Preset = "published",
    recipe: RecipeFile = None,
    settings: Settings = None,
    schema: SchemaFile = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Most epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Initial rate of Adam.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of weights, order, dropout.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="CPU threads per process.")
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write TensorBoard events.")
    ] = None,
    users: Users = None,
    cache: Cache = None,
    as_json: AsJson = False,
) -> None:
    """Train by a recipe. An interrupted run resumes after its last complete epoch.

    Of the recipe's numbers, later sources win: --preset, --recipe, --set, --epochs and the like.
    """
    changed = given(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    with exit_on_error():
        resolved = resolve(preset, recipe, settings or (), changed)
        board = TensorBoard(tensorboard, resolved) if tensorboard else None

    import torch

    from training.data.dataset import open_data
    from training.loop.data_parallel import process_group
    from training.loop.fit import fit as run

    if threads:
        torch.set_num_threads(threads)
    with exit_on_error(), process_group() as group, progress(group.first) as on_progress:
        opened = open_data(
            data, read_schema(data, schema), on_progress, cache, users, resolved.user_min_count
        )
        if group.first:
            recipes.show_resolved(resolved)
        with closing(board) if board else nullcontext():
            metrics = run(
                opened.train, opened.valid, resolved, out, group, on_progress, board or no_log
            )
    if not group.first:
        return
    if as_json:
        print(json.dumps(metrics))
    else:
        table = Table("epoch", "train loss", "valid logloss", "valid AUC", "seconds")
        for e in metrics["epochs"]:
            figures = (f"{e[k]:.4f}" for k in ("train_loss", "valid_logloss", "valid_auc"))
            mark = " ← kept" if e["epoch"] == metrics["best_epoch"] else ""
            table.add_row(f"{e['epoch']}{mark}", *figures, f"{e['seconds']:.1f}")
        screen.print(table)
        screen.print(f"checkpoint: {out} ({metrics['seconds']:.0f} s of training)", markup=False)
