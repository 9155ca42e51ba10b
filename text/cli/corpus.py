"""Implements ``python -m text corpus``: build and stats."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from text.cli.console import AsJson, exit_on_error, language_codes, progress, screen

app = typer.Typer(
    help="Build and describe corpora: texts, pairs and tasks in several languages.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


@app.command()
def build(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    languages: Annotated[
        str, typer.Option(metavar="LANG,…", help="Two-letter codes; the first one is the pivot.")
    ] = "en,de",
    folders: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="FOLDER", help="Files of your own; may be repeated."),
    ] = None,
    sources: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…", help="Sources of Debian; default all, and with --from none."
        ),
    ] = None,
    archives: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Downloaded archives, read if they are there; default archives beside OUT.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build a corpus of Debian packages, which are downloaded by name, or of files of your own."""
    from text.corpus.archives import Archives
    from text.corpus.build import build as run
    from text.corpus.sources import chosen

    with exit_on_error(), progress() as on_progress:
        names = sources.split(",") if sources else [] if folders else ["all"]
        codes = language_codes(languages)
        store = Archives(archives or out.parent / "archives")
        about = run(out, codes, chosen(names), folders or [], store, on_progress)
    _print(out, about, as_json)


@app.command()
def stats(
    folder: Annotated[Path, typer.Argument(metavar="CORPUS", help="Folder of a corpus.")],
    as_json: AsJson = False,
) -> None:
    """Count texts, words and pairs by source, language, split and licence."""
    from text.corpus.corpus import Corpus

    with exit_on_error():
        corpus = Corpus.open(folder)
        about = corpus.about | {"digest": corpus.digest}
    _print(folder, about, as_json)


def _print(folder: Path, about: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(about, ensure_ascii=False))
        return
    licences = {name: source["licence"] for name, source in about["sources"].items()}
    table = Table(
        "table", "source", "languages", "kind", "train", "valid", "test", "words", "licence"
    )
    cells: dict[tuple[str, ...], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for count in about["counts"]:
        key = tuple(count[name] for name in ("table", "source", "languages", "kind"))
        cells[key][count["split"]] += count["rows"]
        cells[key]["words"] += count["words"]
    for key, numbers in cells.items():
        figures = (f"{numbers[name]:,}" for name in ("train", "valid", "test", "words"))
        table.add_row(*key, *figures, licences.get(key[1], ""))
    screen.print(table)
    for source, reasons in about["refused"].items():
        said = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        screen.print(f"left out of {source}: {said}", markup=False)
    for warning in about.get("warnings", []):
        screen.print(f"warning: {warning}", markup=False)
    for name in about.get("absent_packages", []):
        screen.print(f"not in this release of the distribution: {name}", markup=False)
    rows = {name: file["rows"] for name, file in about["tables"].items()}
    said = ", ".join(f"{count:,} {name}" for name, count in rows.items())
    screen.print(f"{folder}: {', '.join(about['languages'])}: {said}", markup=False)
