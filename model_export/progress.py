"""A progress bar over named steps, on stderr so that stdout stays the command's answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def steps(names: Sequence[str]) -> Iterator[Callable[[str], None]]:
    """Yields ``announce(name)``, to be called as each step begins."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(names[0], total=len(names))

        def announce(name: str) -> None:
            progress.update(task, description=name, completed=names.index(name))

        yield announce
        progress.update(task, description="done", completed=len(names))
