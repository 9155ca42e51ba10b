"""``python -m training levels``: popularity levels by day."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from training.cli.console import AsJson, TimeUnit, exit_on_error, fail, progress, screen


def levels(
    clicks: Annotated[Path, typer.Argument(help="Parquet with user_id, item_id, time per click.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Parquet file to write.")],
    rows: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Parquet with item_id and time; joins their levels."),
    ] = None,
    last: Annotated[
        bool, typer.Option("--last", help="Write the last day's alone: a file to load and serve.")
    ] = False,
    column: Annotated[str, typer.Option(help="Name of the level's column.")] = "level",
    unit: TimeUnit = None,
    as_json: AsJson = False,
) -> None:
    """Write popularity levels 1 to 10 of each day, of clicks before that day; 0 for none.

    A row per item and day (UTC) with a click before it; with --last a row per item, for the day
    after the last click; with --rows those rows with a column.
    """
    from training.data.levels import Clicks
    from training.data.levels_file import write_joined, write_last, write_levels

    if last and rows is not None:
        fail("--last: not with --rows, whose days decide")
    if out.is_dir():
        fail(f"--out {out}: a folder; give a file in it")
    if out.exists() and out.samefile(clicks):
        fail(f"--out {out}: has the clicks, which it would replace; give another file")
    for folder in filter(Path.is_dir, (clicks, rows or clicks)):
        if out.resolve().is_relative_to(folder.resolve()):  # the next run would read it as a part
            fail(f"--out {out}: within {folder}, the folder of what is read; give another file")
    with exit_on_error(), progress() as on_progress:
        read = Clicks.read(clicks, unit, on_progress)
        if last:
            written = write_last(read, out, column)
        elif rows is None:
            written = write_levels(read, out, column, on_progress)
        else:
            written = write_joined(read, rows, out, column, unit, on_progress)
    if as_json:
        print(json.dumps(dataclasses.asdict(written)))
    else:
        screen.print(
            f"{out}: {written.rows:,} rows; {written.clicks:,} clicks of {written.items:,} items, "
            f"{written.first_day} to {written.last_day}",
            markup=False,
        )
