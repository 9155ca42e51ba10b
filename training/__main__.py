"""Implements ``python -m training``."""

from __future__ import annotations

import typer

from feature_store.terminal import run
from training.cli import recipe
from training.cli.bench import bench, bench_users
from training.cli.compare import compare
from training.cli.evaluate import evaluate
from training.cli.fit import fit
from training.cli.levels import levels
from training.cli.synthesize import synthesize
from training.cli.tune import tune

app = typer.Typer(
    help="Train the Quadratic Interest Network: parquet files in, a checkpoint out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
)
app.add_typer(recipe.app, name="recipe")
app.command()(synthesize)
app.command()(fit)
app.command()(evaluate)
app.command()(compare)
app.command()(tune)
app.command()(levels)
app.command()(bench)
app.command()(bench_users)


if __name__ == "__main__":
    run(app)
