"""``python -m feature_store``: load, query, check and export a store, forget users, map ids."""

from __future__ import annotations

from functools import partial

import typer

from feature_store.cli.check import check, export
from feature_store.cli.ids import ids
from feature_store.cli.load import load
from feature_store.cli.lookup import forget_user, get_item, get_user, stats
from feature_store.terminal import run

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Load, query, check and export user histories and features of items and users.",
    pretty_exceptions_show_locals=False,
)
for command in (load, get_user, get_item, stats, check, export, forget_user, ids):
    app.command()(command)

if __name__ == "__main__":
    run(partial(app, prog_name="python -m feature_store"))
