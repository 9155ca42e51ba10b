"""Options, messages and progress bars that the commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from feature_store.schema import FeatureSchema, SchemaError
from feature_store.terminal import printable
from feature_store.wording import with_file
from training.loop.epoch_log import TensorBoardMissingError
from training.progress import OnProgress
from training.recipe_files import RecipeError
from training.tuning.search_space import SearchError

screen = Console(stderr=True, soft_wrap=True)
if not screen.is_terminal:
    screen.width = 200  # rich's 80 columns would wrap what a log or a file holds
Cache = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder of the rows' cache; default DATA/.cache."),
]
Users = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Users file; default DATA/user_info.parquet, if present."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print figures as JSON.")]
TimeUnit = Annotated[
    Literal["s", "ms", "us", "ns"] | None,
    typer.Option("--unit", help="Of a column time that holds integers."),
]
SchemaFile = Annotated[
    Path | None, typer.Option(help="Feature schema; default DATA/schema.yaml, then MicroLens.")
]


def read_schema(data: Path, given: Path | None) -> FeatureSchema:
    """Read the schema given, else DATA/schema.yaml, else return MicroLens."""
    if given is None and not (data / "schema.yaml").exists():
        return FeatureSchema.microlens()
    return FeatureSchema.read(given or data / "schema.yaml")


def given(**options: Any) -> dict[str, Any]:
    """Drop options that are not given."""
    return {name: value for name, value in options.items() if value is not None}


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print an expected error as one line and exit with code 1."""
    try:
        yield
    except (RecipeError, SchemaError, SearchError, TensorBoardMissingError) as error:
        fail(str(error))
    except (OSError, ValidationError) as error:
        fail(with_file(error))
    except MemoryError as error:
        fail(f"not enough memory: {error}")
    except ValueError as error:
        from feature_store.parquet.columns import DataFileError
        from training.checkpoint import CheckpointError
        from training.loop.run import FitError
        from training.synthetic.synthesize import SynthesisError

        if isinstance(error, DataFileError | CheckpointError | FitError | SynthesisError):
            fail(str(error))
        raise


def fail(message: str) -> NoReturn:
    screen.print(f"[red]error:[/red] {escape(printable(message))}", highlight=False, soft_wrap=True)
    sys.exit(1)


@contextmanager
def progress(shown: bool = True) -> Iterator[OnProgress]:
    """Yield a callback that draws a progress bar per step."""
    columns = (
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=screen, disable=not shown) as bars:
        tasks: dict[str, Any] = {}

        def on_progress(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done, total=total)

        yield on_progress
