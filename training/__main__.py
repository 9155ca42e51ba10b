"""Implements ``python -m training``: synthesize, fit, evaluate, bench, and those of ``cli``."""

from __future__ import annotations

import dataclasses
import json
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from feature_store.terminal import run
from training.cli import recipe as recipes
from training.cli.compare import compare
from training.cli.console import (
    AsJson,
    Cache,
    SchemaFile,
    TimeUnit,
    Users,
    exit_on_error,
    given,
    progress,
    read_schema,
    screen,
)
from training.cli.levels import levels
from training.cli.recipe import Preset, RecipeFile, Settings
from training.cli.tune import tune
from training.epoch_log import TensorBoard, no_log
from training.output import writing
from training.recipe_files import resolve

LEAST_TAGS = 4  # one of them a package's section

app = typer.Typer(
    help="Train the Quadratic Interest Network: parquet files in, a checkpoint out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
)
app.add_typer(recipes.app, name="recipe")
app.command("tune")(tune)
app.command("levels")(levels)
app.command("compare")(compare)


@app.command()
def synthesize(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    preset: Annotated[Literal["demo", "taste", "challenge"], typer.Option(help="Sizes.")] = "demo",
    train: Annotated[int | None, typer.Option(min=4, help="Rows.")] = None,
    valid: Annotated[int | None, typer.Option(min=4, help="Rows.")] = None,
    test: Annotated[int | None, typer.Option(min=4, help="Rows.")] = None,
    items: Annotated[int | None, typer.Option(min=10, help="Catalogue size.")] = None,
    tags: Annotated[int | None, typer.Option(min=1, help="Distinct tags.")] = None,
    embedding: Annotated[int | None, typer.Option(min=1, help="Content embedding size.")] = None,
    history: Annotated[int | None, typer.Option(min=1, help="History length L.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    catalogue: Annotated[
        Path | None,
        typer.Option(
            metavar="CORPUS", help="Items with their texts from a folder of `text corpus build`."
        ),
    ] = None,
    least_tags: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"With --catalogue: tags that an item must have; default {LEAST_TAGS}."
        ),
    ] = None,
    cold: Annotated[
        int | None, typer.Option(min=4, help="With --catalogue: rows of cold items alone.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write synthetic data in the challenge's format; print the best AUC that a model can reach."""
    from training.synthesis_sizes import SIZES
    from training.synthesize import synthesize as run
    from training.tagged_items import TaggedItems

    if catalogue and (preset != "demo" or items or tags):
        raise typer.BadParameter("not with --preset, --items or --tags", param_hint="--catalogue")
    for option, value in (("--cold", cold), ("--least-tags", least_tags)):
        if value and not catalogue:
            raise typer.BadParameter("requires --catalogue", param_hint=option)
    counts = given(train=train, valid=valid, test=test, items=items, tags=tags, cold=cold)
    changed = counts | given(embedding=embedding, history=history)
    with exit_on_error(), writing(out), progress() as on_progress:
        sizes = dataclasses.replace(SIZES["catalogue" if catalogue else preset], **changed)
        tagged = TaggedItems.read(catalogue, least_tags or LEAST_TAGS) if catalogue else None
        truth = run(out, sizes, seed, on_progress, tagged)
    if as_json:
        print(json.dumps(dataclasses.asdict(truth)))
        return
    screen.print(
        f"{out}: {sizes.train:,} training rows, {truth.sizes.items:,} items, "
        f"{truth.positives_train:.1%} positive; "
        f"best AUC any model could reach on valid: {truth.best_auc_valid:.4f}",
        markup=False,
    )
    if tagged:
        screen.print(
            f"{truth.cold_items:,} cold items, {truth.cold_items_of_one_language:,} of them with "
            f"{list(tagged.texts)[1]} texts alone; best AUC on cold: {truth.best_auc_cold:.4f}",
            markup=False,
        )


@app.command()
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

    from training.data_parallel import process_group
    from training.dataset import open_data
    from training.fit import fit as run

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


@app.command()
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
    from training.dataset import open_held_out
    from training.evaluate import best_auc, share_of_the_possible
    from training.evaluate import evaluate as figures_of
    from training.fit import predict
    from training.leakage import static_levels
    from training.metrics import reliability
    from training.plots import reliability_plot

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


@app.command()
def bench(
    batch: Annotated[int, typer.Option(min=2, help="Rows.")] = 256,
    history: Annotated[int | None, typer.Option(min=1, help="History length L.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved repeats.")] = 11,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads.")] = None,
    as_json: AsJson = False,
) -> None:
    """Time forward + backward at the paper's sizes, against the published formulation."""
    from training.bench import run

    with progress() as on_progress:
        figures = run(
            batch=batch, history=history, repeats=repeats, threads=threads, on_progress=on_progress
        )
    if as_json:
        print(json.dumps(figures))
    else:
        table = Table("figure", "value")
        for name, value in figures.items():
            table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
        screen.print(table)


@app.command()
def bench_users(
    users: Annotated[list[int] | None, typer.Option(min=1, help="May be repeated.")] = None,
    preset: Preset = "demo",
    settings: Settings = None,
    batch: Annotated[int, typer.Option(min=2, help="Rows.")] = 2048,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved repeats.")] = 21,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads.")] = None,
    as_json: AsJson = False,
) -> None:
    """Time a training step with few and with many users, 1,000 and 1,000,000 by default."""
    with exit_on_error():
        recipe = resolve(preset, None, settings or (), {})

    from training.bench_users import run

    with progress() as on_progress:
        figures = run(
            users or [1000, 1_000_000],
            recipe,
            batch=batch,
            repeats=repeats,
            threads=threads,
            published=preset == "published",
            on_progress=on_progress,
        )
    if as_json:
        print(json.dumps(figures))
    else:
        for count, value in figures["step_ms"].items():
            screen.print(f"{int(count):,} users: {value:.1f} ms a step")
        screen.print(f"ratio: {figures['ratio']:.3f}")


def show(figures: dict[str, Any]) -> None:
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


if __name__ == "__main__":
    run(app)
