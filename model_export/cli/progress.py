"""Progress bar over named steps, on stderr: stdout is for results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def counted(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """Yield ``announce(step, done, total)``."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None)

        def announce(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total)

        yield announce


@contextmanager
def steps(names: Sequence[str]) -> Iterator[Callable[[str], None]]:
    """Yield ``announce(name)``, to call at the start of each step."""
    with counted(names[0]) as announce:
        announce(names[0], 0, len(names))
        yield lambda name: announce(name, names.index(name), len(names))
        announce("done", len(names), len(names))
