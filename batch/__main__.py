"""``python -m batch``: score a whole user base, and compare the scores of two versions."""

from __future__ import annotations

import typer

from batch.cli.score import score
from feature_store.terminal import escape_unencodable

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Score a whole user base: parquet in, parquet out, as the service answers.",
)
app.command()(score)


@app.callback()
def batch() -> None:
    """Score a whole user base: parquet in, parquet out, as the service answers."""


if __name__ == "__main__":
    escape_unencodable()
    app(prog_name="python -m batch")
