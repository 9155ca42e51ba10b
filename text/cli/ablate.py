"""Implements ``python -m text ablate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer

from text.cli.console import AsJson, exit_on_error, progress, screen
from text.cli.encoder import CorpusFolder, Preset, RecipeFile, Settings

NAMES = ("similarity", "bilingual", "length")


def ablate(
    corpus: CorpusFolder,
    out: Annotated[Path, typer.Option(help="Folder of results, checkpoints and the report.")],
    claims: Annotated[
        str, typer.Option(metavar="CLAIM,…", help=f"Of {', '.join(NAMES)}.")
    ] = ",".join(NAMES),
    seeds: Annotated[int, typer.Option(min=1, max=99, help="Runs of each arm.")] = 3,
    six: Annotated[
        Path | None,
        typer.Option(metavar="CORPUS", help="Corpus of more languages, for bilingual."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Encoder after stage II, for similarity and planted pages; default: trained.",
        ),
    ] = None,
    preset: Preset = "demo",
    recipe_file: RecipeFile = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Test the claims of the paper in miniature. A rerun does what is missing."""
    names = list(dict.fromkeys(claims.split(",")))
    for name in names:
        if name not in NAMES:
            raise typer.BadParameter(
                f"{name} is none of {', '.join(NAMES)}", param_hint="'--claims'"
            )
    from text.ablate.experiment import Experiment
    from text.ablate.recipe import RECIPES
    from text.ablate.report import PAGE, write
    from text.ablate.run import run
    from text.corpus.corpus import Corpus
    from text.encoder.memory import keep_freed_memory

    keep_freed_memory()
    with exit_on_error(), progress() as on_progress:
        recipe = RECIPES.resolve(preset, recipe_file, settings or ())
        opened = Corpus.open(corpus)
        more = None if six is None else Corpus.open(six)
        experiment = Experiment(opened, recipe, out, more, start, on_progress)
        outcomes = run(experiment, names, seeds)
        found = {"recipe": recipe.model_dump(), "claims": [each.to_json() for each in outcomes]}
        write(out, outcomes, found)
    for outcome in outcomes:
        screen.print(f"{outcome.claim.name}: {outcome.verdict.text}", markup=False, highlight=False)
    screen.print(f"{out / PAGE}: written", markup=False, highlight=False)
    if as_json:
        sys.stdout.write(orjson.dumps(found).decode() + "\n")
