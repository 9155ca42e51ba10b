"""Shows live progress of a run in the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtest.analysis.statistics import percentile
from loadtest.generator.columns import Bucket, Columns
from loadtest.generator.runner import Watcher
from loadtest.units import human

RECENT = 2.0  # seconds covered by the moving numbers


@contextlib.contextmanager
def live(console: Console, title: str) -> Iterator[Watcher | None]:
    """Yield a watcher that draws progress; None if the console is not a terminal."""
    if not console.is_terminal:
        yield None
        return
    with Live(console=console, auto_refresh=False, transient=True) as display:

        def watch(columns: Columns, elapsed: float) -> None:
            display.update(_view(title, columns, elapsed), refresh=True)

        yield watch


def _view(title: str, columns: Columns, elapsed: float) -> Group:
    length = float(columns.at[-1])
    due = int(np.searchsorted(columns.at, elapsed))
    recent = slice(int(np.searchsorted(columns.at, elapsed - RECENT)), due)
    response = (columns.done - columns.at)[recent]
    response = response[~np.isnan(response)]
    lag = (columns.attended - columns.at)[recent]
    lag = lag[~np.isnan(lag)]
    buckets = columns.bucket[:due]
    waiting = int(np.sum(~np.isnan(columns.attended[:due]) & (buckets == Bucket.UNSENT)))
    table = Table.grid(padding=(0, 2))
    table.add_row(
        f"{due:,} of {columns.requests:,} requests",
        f"{lag.size / min(RECENT, max(elapsed, 1e-9)):,.0f}/s",
        f"p50 {human(percentile(response, 0.5))}",
        f"p99 {human(percentile(response, 0.99))}",
        f"lag p99 {human(percentile(lag, 0.99))}",
    )
    ends = [
        f"{kind.name.lower().replace('_', ' ')} {int(np.sum(buckets == kind)):,}"
        for kind in Bucket
        if kind is not Bucket.UNSENT
    ]
    table.add_row(*ends[:4], f"{ends[4]} · in flight {waiting:,}")
    bar = ProgressBar(total=length, completed=min(elapsed, length), width=60)
    left = Text(f" {max(0.0, length - elapsed):.0f} s left", style="dim")
    head = Table.grid()
    head.add_row(Text(f"{title}  ", style="bold"), bar, left)
    return Group(head, table)
