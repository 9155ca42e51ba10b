"""Implements ``python -m text embed``: items' content, to a table and to a store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from text.cli.console import AsJson, exit_on_error, progress, screen
from text.cli.content import ItemFile, TextColumns, Threads
from training.loop.run_lock import alone
from training.output import writing

if TYPE_CHECKING:
    from text.content.embed import Embedding, EmbedReport
    from text.content.store import StoreReport

INCOMPLETE = 3  # exit code, as of feature_store load


def embed(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="Folder of an encoder bundle with a map.")
    ],
    items: ItemFile,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Parquet table: the rows of ITEMS with their content. Rows that it has already "
            "are not encoded again.",
        ),
    ],
    store: Annotated[
        str | None,
        typer.Option(
            metavar="STORE_URL", help="Also write what differs there: lmdb://PATH, redis://HOST, …"
        ),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="With --store: item id column; by default item_id.")
    ] = None,
    text: TextColumns = None,
    threads: Threads = 1,
    as_json: AsJson = False,
) -> None:
    """Encode the texts of ITEMS to the content of an item feature; only what changed.

    After an interruption, the same command resumes, to the same bytes.

    Exit code: 0, complete; 3, without rows that the store rejected or whose records are damaged; 1,
    failed.
    """
    from feature_store.parquet.columns import DataFileError

    if out.is_dir():
        raise typer.BadParameter(f"--out {out} is a folder; give a file in it")
    busy = DataFileError(f"{out}: another process is at this table; end it or wait for it")
    with (
        exit_on_error(),
        alone(out.with_name(f".{out.name}.lock"), busy),
        progress() as on_progress,
    ):
        from text.content.embed import Embedding
        from text.runtime.encoder import TextEncoder

        run = Embedding(TextEncoder.open(bundle, threads), items, out, text or [])
        for name in run.missing:
            screen.print(f"{items}: no column {name}: missing of every item", markup=False)
        report = run.run(lambda rows: on_progress("embed items", rows, run.items.rows), writing)
        written = None
        if store:
            rows = run.items.rows
            written = asyncio.run(
                _put(run, store, id_column, lambda row: on_progress("write to store", row, rows))
            )
    if as_json:
        about = {"feature": run.feature, "digest": run.digest} | asdict(report)
        print(json.dumps(about | ({"store": asdict(written)} if written else {})))
    else:
        _show(run, report, store, written)
    if written and (written.rejected or written.damaged):
        raise typer.Exit(INCOMPLETE)


def _show(
    run: Embedding, report: EmbedReport, store: str | None, written: StoreReport | None
) -> None:
    lines = [
        f"{run.out}: {report.items:,} items, {run.feature} of digest {run.digest}: "
        f"{report.encoded:,} encoded, {report.unchanged:,} unchanged, "
        f"{report.without:,} without content; {report.truncated:,} texts truncated"
    ]
    if store and written:
        from feature_store.connect import shown

        lines.append(
            f"{shown(store)}: {written.written:,} contents written, "
            f"{written.inserted:,} items inserted, {written.same:,} the same; "
            f"{written.without:,} without content, "
            f"{written.not_in_store:,} not in the store, {written.damaged:,} damaged, "
            f"{written.rejected:,} rejected"
        )
        lines += written.examples
    for line in lines:
        screen.print(line, markup=False, highlight=False)


async def _put(
    run: Embedding, url: str, id_column: str | None, advance: Callable[[int], None]
) -> StoreReport:
    from feature_store.connect import connect
    from feature_store.options import StoreOptions
    from text.content.store import put_contents

    options = StoreOptions(budget_ms=10_000.0)
    store = await connect(url, None, create=False, options=options)
    try:
        size = run.map.about.size
        return await put_contents(
            store, run.out, run.origin, size, id_column=id_column, advance=advance
        )
    finally:
        await store.close()
