"""Implements ``python -m text content``: maps from vectors to the numbers of a feature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from feature_store.output_files import is_device
from text.cli.console import AsJson, exit_on_error, progress, screen
from training.output import write_whole

if TYPE_CHECKING:
    from text.runtime.content import ContentMap

app = typer.Typer(
    no_args_is_help=True,
    help="Maps from vectors of texts to item features.",
    pretty_exceptions_show_locals=False,
)
ItemFile = Annotated[
    Path, typer.Argument(metavar="ITEMS", help="Parquet file of items, or folder of parts.")
]
TextColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--text", metavar="COLUMN", help="Column of texts; repeatable; default text and text_LANG."
    ),
]
GivenColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--given", metavar="COLUMN", help="Column of other vectors, as of images; repeatable."
    ),
]
Threads = Annotated[int, typer.Option(min=1, help="Threads of the encoder.")]


@app.command()
def fit(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of an encoder bundle.")],
    items: ItemFile,
    out: Annotated[Path, typer.Option(metavar="FILE", help="File of the map, .npz.")],
    into: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Fit a ridge into this column's numbers; items without are left."
        ),
    ] = None,
    size: Annotated[
        int, typer.Option(min=1, help="Without --into: number of principal components.")
    ] = 128,
    feature: Annotated[
        str | None,
        typer.Option(help="Item feature that the content is for; default --into, item_emb_d128."),
    ] = None,
    text: TextColumns = None,
    given: GivenColumns = None,
    threads: Threads = 1,
    as_json: AsJson = False,
) -> None:
    """Fit a map from the texts of ITEMS to content: principal components, or a ridge."""
    if into in (given or ()):
        raise typer.BadParameter(f"--into {into} is also --given: what is fitted to is no input")
    if is_device(out):
        raise typer.BadParameter(f"--out {out} is a device or a pipe; give a file")
    if out.is_dir():
        raise typer.BadParameter(f"--out {out} is a folder; give a file in it")
    with exit_on_error(), progress() as on_progress:
        from text.content.fit import fit as run
        from text.content.items import ItemTexts
        from text.runtime.content import ContentMap
        from text.runtime.encoder import TextEncoder

        encoder = TextEncoder.open(bundle, threads)
        opened = ItemTexts(items, text or (), [*(given or ()), *([into] if into else [])])
        fitted = run(
            encoder,
            opened,
            feature or into or "item_emb_d128",
            into=into,
            size=size,
            advance=lambda rows: on_progress("encode items", rows, opened.rows),
        )
        write_whole(out, fitted.encoded())
        fitted = ContentMap.load(out.resolve())  # a link is refused, as of a bundle
    show(fitted, as_json)


@app.command()
def info(
    file: Annotated[Path, typer.Argument(metavar="MAP", help="File of a map.")],
    as_json: AsJson = False,
) -> None:
    """Print what a map takes and gives, and how well it fits."""
    with exit_on_error():
        from text.runtime.content import ContentMap

        found = ContentMap.load(file)
    show(found, as_json)


def show(content: ContentMap, as_json: bool) -> None:
    """Print a map's origin and figures."""
    from text.runtime.content import content_digest

    about = content.about
    digest = content_digest(about.network, content.digest)
    if as_json:
        print(json.dumps(about.model_dump() | {"map": content.digest, "digest": digest}))
        return
    inputs = ", ".join(f"{name} {size}" for name, size in about.inputs.items())
    screen.print(f"{about.method}: {inputs} → {about.feature} {about.size}; digest {digest}")
    table = Table("items have", "items", "λ", "held-out R²", "variance explained")
    for part in about.parts:
        table.add_row(
            " + ".join(part.has),
            f"{part.items:,}",
            "" if part.penalty is None else f"{part.penalty:.2g}",
            "" if part.r2 is None else f"{part.r2:.4f}",
            "" if part.explained is None else f"{part.explained:.4f}",
        )
    screen.print(table)
