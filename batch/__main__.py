"""``python -m batch``: score a whole user base, and compare the scores of two versions."""

from __future__ import annotations

from functools import partial

import typer

from batch.cli.compare import compare
from batch.cli.score import score
from feature_store.terminal import run

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    add_completion=False,
    help="Score a whole user base, parquet in, parquet out; compare the scores of two versions.",
)
app.command()(score)
app.command()(compare)


if __name__ == "__main__":
    run(partial(app, prog_name="python -m batch"))
