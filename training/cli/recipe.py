"""``python -m training recipe``, and the options that resolve a recipe."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from training.cli.console import exit_on_error, screen
from training.recipe import Recipe
from training.recipe_files import resolve, to_yaml

app = typer.Typer(
    help="Show recipes: the numbers of training.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
PresetName = Literal["published", "demo"]
Preset = Annotated[PresetName, typer.Option(help="Recipe to start from.")]
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="YAML file of numbers that replace the preset's, or a checkpoint, whose recipe it is.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="One number, such as sizes.rows=3."),
]


@app.command()
def show(
    source: Annotated[
        str, typer.Argument(metavar="RECIPE", help="published, demo, a YAML file or a checkpoint.")
    ] = "published",
    settings: Settings = None,
) -> None:
    """Print a recipe as YAML on stdout, every number with its meaning: a file for --recipe."""
    with exit_on_error():
        if source in get_args(PresetName):
            recipe = resolve(source, settings=settings or ())
        else:
            recipe = resolve(file=Path(source), settings=settings or ())
    sys.stdout.write(to_yaml(recipe))


def show_resolved(recipe: Recipe, drawn: Collection[str] = ()) -> None:
    """Print the recipe of a run at its start, or of a search that draws some of its numbers."""
    screen.print(to_yaml(recipe, drawn), markup=False, highlight=False, end="")
