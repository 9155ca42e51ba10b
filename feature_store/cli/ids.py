"""``ids``: map ids of other systems to the store's and count collisions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from feature_store.cli.app import AsJson, refusals, written
from feature_store.parquet.id_numbers import IdNumbers, IdReport, Method

COLLIDING = 3  # exit code


def ids(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Parquet files.")],
    column: Annotated[
        list[str],
        typer.Option(help="Id column, of numbers or lists; repeat it for more of the same kind."),
    ],
    method: Annotated[
        Method,
        typer.Option(help="mask: integers without their sign bit. sha256: 63 bits of a hash."),
    ] = "mask",
    into: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write copies of the files, their ids mapped."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Map signed, 64-bit, string or UUID ids to 0 … 2⁶³−1, and count collisions.

    All columns given are of one kind (users, or items). Exit code: 0; 3, ids collide, and nothing
    is written; 1, failed.
    """
    with refusals():
        numbers = IdNumbers(files, column, method)
        report = numbers.report()
        colliding = report.collisions or report.padding
        if into is not None and not colliding:
            with written(into):
                numbers.write(into)
    if as_json:
        typer.echo(orjson.dumps(report.as_json()))
    else:
        _print(report)
    if colliding:
        for example in report.examples:
            typer.echo(f"collision: {example}", err=True)
        remedy = "; --method sha256 maps them otherwise" if method == "mask" else ""
        nothing = "" if into is None else ", nothing is written"
        typer.echo(f"error: ids collide{nothing}{remedy}", err=True)
        raise typer.Exit(COLLIDING)


def _print(report: IdReport) -> None:
    Console().print(
        f"{report.ids:,} distinct ids, {report.outside:,} of them not in 0 … 2⁶³−1; "
        f"{report.collisions:,} collisions, {report.padding:,} become 0 (padding)",
        soft_wrap=True,
        highlight=False,
    )
