"""Implements ``python -m text``."""

from __future__ import annotations

import typer

from feature_store.terminal import run
from text.cli import bench, content, corpus, encoder, export, published
from text.cli.ablate import ablate
from text.cli.cold import cold_items
from text.cli.embed import embed

app = typer.Typer(
    help="Train and evaluate bilingual text encoders, from corpora built of named packages.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
)
app.add_typer(corpus.app, name="corpus")
app.add_typer(encoder.recipes, name="recipe")
app.add_typer(content.app, name="content")
app.command("fit")(encoder.fit)
app.command("evaluate")(encoder.evaluate)
app.command("import-jina")(published.import_jina)
app.command("build")(export.build)
app.command("verify")(export.verify)
app.command("info")(export.info)
app.command("sign")(export.sign)
app.command("embed")(embed)
app.command("bench")(bench.bench)
app.command("ablate")(ablate)
app.command("cold-items")(cold_items)


if __name__ == "__main__":
    run(app)
