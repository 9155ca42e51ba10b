"""``python -m training tune``: searches recipes."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.table import Table

from training.cli.console import (
    AsJson,
    Cache,
    SchemaFile,
    Users,
    exit_on_error,
    fail,
    progress,
    read_schema,
    screen,
)
from training.cli.recipe import Preset, RecipeFile, Settings, show_resolved
from training.output import writing
from training.recipe_files import resolve

if TYPE_CHECKING:
    from training.tuning.trials_table import TrialRow

INTERRUPTED = 130  # exit status, as of a shell for SIGINT


def tune(
    data: Annotated[Path, typer.Argument(help="Folder with train, valid, item_info parquet.")],
    space: Annotated[Path, typer.Option(metavar="FILE", help="Search space, YAML.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the study.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials of the study, earlier ones too.")] = 20,
    timeout: Annotated[
        float | None, typer.Option(min=0, metavar="S", help="Stop after S seconds, at an epoch.")
    ] = None,
    prune: Annotated[
        bool, typer.Option(help="End trials below the median of others at the same epoch.")
    ] = True,
    preset: Preset = "published",
    recipe: RecipeFile = None,
    settings: Settings = None,
    schema: SchemaFile = None,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads.")] = None,
    users: Users = None,
    cache: Cache = None,
    as_json: AsJson = False,
) -> None:
    """Search the recipe with the best validation AUC. The same command goes on after a stop.

    Writes trials.csv, study.png and best.yaml, a file for `fit --recipe`, into the folder.
    """
    if importlib.util.find_spec("optuna") is None:
        fail(
            "tune: requires the extra tune: `make setup` in a clone, elsewhere "
            "pip install -c constraints.txt 'qin-serving[tune]'"
        )
    from training.tuning.search_space import SearchSpace

    with exit_on_error():
        base = resolve(preset, recipe, settings or ())
        dimensions = SearchSpace.read(space, base)

    import torch

    from training.data.dataset import open_data
    from training.tuning.tune import BEST, Search, report
    from training.tuning.tune import tune as run

    if threads:
        torch.set_num_threads(threads)
    stopped = False
    with exit_on_error(), progress() as on_progress:
        opened = open_data(
            data, read_schema(data, schema), on_progress, cache, users, base.user_min_count
        )
        search = Search(dimensions, base, opened.train, opened.valid, prune)
        try:
            with writing(out):
                show = partial(show_resolved, base, dimensions.dimensions)
                run(search, out, trials, timeout, on_progress, show)
        except KeyboardInterrupt:
            stopped = True
    with exit_on_error(), writing(out):
        rows = report(search, out)
    best = next((row for row in rows if row.best), None)
    if as_json:
        shown = [dataclasses.asdict(row) for row in rows]
        kept = {"best": best and dataclasses.asdict(best), "trials": shown, "wanted": trials}
        sys.stdout.buffer.write(orjson.dumps(kept) + b"\n")
        sys.stdout.flush()
    else:
        screen.print(_table(rows, list(dimensions.dimensions)))
    if len(rows) < trials:
        screen.print(f"{len(rows)} of {trials} trials; the same command goes on", markup=False)
    if best is not None:
        screen.print(f"best recipe: {out / BEST}", markup=False)
    if stopped:
        sys.exit(INTERRUPTED)
    if best is None and len(rows) >= trials:
        fail(f"{out}: every trial diverged, so there is no {BEST}; give a space of lower rates")


def _table(rows: Sequence[TrialRow], names: Sequence[str]) -> Table:
    table = Table("trial", "valid AUC", "valid logloss", "epochs", "seconds", *names)
    for row in rows:
        mark = " ← best" if row.best else "" if row.state == "complete" else f" {row.state}"
        scores = (row.valid_auc, row.valid_logloss)
        figures = ("–" if score is None else f"{score:.4f}" for score in scores)
        numbers = (row.numbers.get(name, "–") for name in names)
        shown = (f"{n:.4g}" if isinstance(n, float) else str(n) for n in numbers)
        table.add_row(
            f"{row.number}{mark}", *figures, str(row.epochs), f"{row.seconds:.1f}", *shown
        )
    return table
