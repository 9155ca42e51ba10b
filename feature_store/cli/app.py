"""Shared by the commands: arguments, opening a store, error messages, progress."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from feature_store.connect import connect
from feature_store.contract import FeatureStore
from feature_store.errors import StoreError
from feature_store.options import StoreOptions
from feature_store.parquet.columns import DataFileError
from feature_store.schema import FeatureSchema, SchemaError
from feature_store.terminal import printable
from feature_store.wording import with_file

PATIENCE_MS = 10_000.0  # store budget of a command; a request's is shorter

StoreUrl = Annotated[str, typer.Argument(metavar="STORE_URL", help="lmdb://PATH, redis://HOST, …")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
ItemFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--items",
        metavar="FILE",
        help="Item parquet file; repeat it for parts (files with the same columns) and for files "
        "with further columns.",
    ),
]
HistoryFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--histories",
        metavar="FILE",
        help="Parquet file with user_id and item_seq; a user's last row counts.",
    ),
]
UserFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--users",
        metavar="FILE",
        help="Users parquet file: user_id and a column per user feature; repeat it as --items.",
    ),
]
UserIdColumn = Annotated[
    str | None, typer.Option(help="User id column of --users; by default user_id.")
]
IdColumn = Annotated[
    str | None,
    typer.Option(help="Item id column; by default item_id, else the identity feature's."),
]
SchemaFile = Annotated[
    Path | None,
    typer.Option("--schema", metavar="FILE", help="Schema; the store's own by default."),
]


@asynccontextmanager
async def opened(
    url: str,
    schema: Path | None = None,
    *,
    create: bool = False,
    options: StoreOptions | None = None,
) -> AsyncIterator[FeatureStore]:
    """Open the store at ``url`` with the budget of a command."""
    read = FeatureSchema.read(schema) if schema else None
    options = options or StoreOptions(budget_ms=PATIENCE_MS, read_only=not create)
    store = await connect(url, read, create=create and read is not None, options=options)
    try:
        yield store
    finally:
        await store.close()


@contextmanager
def refusals() -> Iterator[None]:
    """Print expected errors as one line on stderr and exit with code 1."""
    try:
        yield
    except (StoreError, SchemaError, DataFileError, OSError, UnicodeEncodeError) as error:
        typer.echo(f"error: {printable(with_file(error))}", err=True)
        raise typer.Exit(1) from error


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Name ``path`` in errors of writing to it, such as a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


class ProgressBar:
    """Progress bar on stderr: rows, rate and remaining time."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),  # a file's name
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=_stderr(),
        )

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def task(self, description: str, total: int, done: int = 0) -> TaskID:
        return self._progress.add_task(
            description, total=total, completed=done, rate="", start=False
        )

    def at(self, task: TaskID, row: int) -> None:
        if not self._progress.tasks[task].started:
            self._progress.start_task(task)
        self._progress.update(task, completed=row)
        speed = self._progress.tasks[task].speed
        if speed:
            self._progress.update(task, rate=f"{speed:,.0f} rows/s")

    def say(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False)


def _stderr() -> Console:
    return Console(file=sys.stderr)
