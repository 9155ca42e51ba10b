"""``compare``: hold the outputs of two runs of one input against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from batch.cli.app import refusals
from batch.compare.comparison import compare as compared
from batch.compare.outputs import named
from batch.compare.picture import picture
from batch.output.folder import put_file
from batch.output.stdout import stdout
from feature_store.terminal import printable

WIDE = 200  # columns, where the output is no terminal
FACTS = {  # and their headings
    "auc": "AUC",
    "logloss": "logloss",
    "mean_score": "mean score",
    "click_rate": "click rate",
    "calibration_error": "calibration error",
}
MISSING = str(None)  # name of a segment whose rows have no value


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Output of a run.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Output of another one, of one input.")],
    input: Annotated[str, typer.Option(metavar="PATH", help="The input.")],  # noqa: A002
    label: Annotated[
        str | None, typer.Option(help="Column of labels, 0 or 1; of lists, a list of them.")
    ] = None,
    segment: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Also by this column; repeat.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="Write a picture, as SVG.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Compare two versions on one input: AUC and calibration where labels are, ranks, segments."""
    with refusals():
        found = compared(a, b, input, label, segment or ())
        facts = found.facts()
        if image is not None:
            put_file(image, picture(found).encode())
        with stdout():
            if as_json:
                typer.echo(orjson.dumps(facts).decode())
            else:
                _print(facts)


def _print(facts: dict[str, Any]) -> None:
    console, ranks = Console(soft_wrap=True, markup=False), facts["ranks"]
    if not console.is_terminal:
        console.width = WIDE
    console.print(
        f"A {facts['a']['model_version']}, B {facts['b']['model_version']}: "
        f"{facts['scored_by_both']:,} of {facts['candidates']:,} candidates scored by both "
        f"(by A alone {facts['scored_by_a_alone']:,}, by B alone {facts['scored_by_b_alone']:,}); "
        f"|B − A| {facts['mean_abs_difference']:.2g} on average, at most "
        f"{facts['largest_difference']:.2g}"
    )
    for name, columns in facts["other_columns"].items():
        one, two = (printable(named(columns[side])) for side in "ab")
        console.print(f"scored by other columns: {name} {one} in A, {two} in B")
    if ranks["lists"]:
        console.print(
            f"ranks, in {ranks['lists']:,} lists: {ranks['top_10_kept']:.1%} of the ten best are "
            f"the same, the first differs in {ranks['first_differs']:.1%}, "
            f"{ranks['mean_places_moved']:.1f} places moved on average"
        )
    if "labels" not in facts:
        return
    table = Table("", "rows", "ΔAUC (B − A)", *(f"{heading}, A → B" for heading in FACTS.values()))
    rows = [("all", facts["labels"])]
    for column, values in facts["segments"].items():
        for name, found in values.items():
            rows.append((f"{column}: {'no value' if name == MISSING else name}", found))
    for name, found in rows:
        cells = [" → ".join(_shown(found[side][fact]) for side in "ab") for fact in FACTS]
        table.add_row(
            printable(name),
            f"{found['rows']:,}",
            _shown(found["delta_auc"], "+.5f"),
            *cells,
        )
    console.print(table)


def _shown(value: float | None, form: str = ".4f") -> str:
    return "–" if value is None else f"{value:{form}}"
