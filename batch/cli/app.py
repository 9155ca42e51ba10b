"""Shared by the commands: errors as one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from batch.progress import Progress
from batch.wording import EXPECTED, worded_fault
from service.observability.logs import configure


@contextmanager
def refusals(progress: Progress | None = None) -> Iterator[None]:
    """Print expected errors as one line on stderr and exit with code 1."""
    configure("auto", "warning")
    try:
        yield
    except EXPECTED as error:
        line = worded_fault(error)
        if progress is not None:
            progress.event("failed", {"error": line})
        typer.echo(f"error: {line}", err=True)
        raise typer.Exit(1) from error
