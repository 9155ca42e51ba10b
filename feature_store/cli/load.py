"""``load``: write parquet files to a store."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from feature_store.cli.app import (
    PATIENCE_MS,
    AsJson,
    HistoryFiles,
    IdColumn,
    ItemFiles,
    ProgressBar,
    SchemaFile,
    StoreUrl,
    opened,
    refusals,
    written,
)
from feature_store.errors import StoreMismatch
from feature_store.options import IdKind, StoreOptions
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.histories import HistoryParquet
from feature_store.parquet.items import ItemParquet
from feature_store.parquet.load import LoadJob, LoadReport, identity
from feature_store.schema import FeatureSchema
from feature_store.text_ids import TextIds, new_key

PROBED_ROWS = 1024
REPORTED = {
    *("items", "histories", "cut", "rejected"),
    *("joined_to_nothing", "differing", "superseded"),
}
REJECTED = 3  # exit code: loaded, but rows were rejected


def load(
    store_url: StoreUrl,
    schema: SchemaFile = None,
    items: ItemFiles = None,
    histories: HistoryFiles = None,
    id_column: IdColumn = None,
    rejects: Annotated[
        Path, typer.Option(metavar="FILE", help="Output file of rejected rows, as JSON lines.")
    ] = Path("rejected-rows.jsonl"),
    ids: Annotated[
        IdKind | None,
        typer.Option(help="New store: kind of its ids; mapped ones are texts, such as UUIDs."),
    ] = None,
    partitions: Annotated[
        int, typer.Option(min=1, max=16_384, help="Redis, new store: hash-tag partitions.")
    ] = StoreOptions().partitions,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start over instead of resuming a stopped load.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Insert and replace items and histories; --schema creates a missing store.

    After an interruption, the same command resumes.

    Exit code: 0, complete; 3, without the rejected rows; 1, failed.
    """
    if not items and not histories:
        raise typer.BadParameter("give --items, --histories or both")
    options = StoreOptions(budget_ms=PATIENCE_MS, partitions=partitions, ids=ids)
    began = time.perf_counter()
    with refusals():
        loaded, warnings = asyncio.run(
            _load(
                store_url,
                schema,
                items or [],
                histories or [],
                id_column,
                rejects,
                options,
                restart,
            )
        )
    _tell(loaded, warnings, rejects, time.perf_counter() - began, as_json)
    if loaded.rejected:
        raise typer.Exit(REJECTED)


async def _load(
    url: str,
    schema: Path | None,
    items: list[Path],
    histories: list[Path],
    id_column: str | None,
    rejects: Path,
    options: StoreOptions,
    restart: bool,
) -> tuple[LoadReport, list[str]]:
    item_source: ItemParquet | None = None
    if schema:
        kind = await _kind_of_ids(url)
        if options.ids in (None, kind or options.ids):  # else the store is refused below
            stand_in = TextIds(new_key()) if "mapped" in (kind, options.ids) else None
            if items:
                item_source = _fitting(items, schema, id_column, stand_in)
            for path in histories:
                HistoryParquet.probe(path, stand_in)
    async with opened(url, schema, create=True, options=options) as store:
        if items and item_source is None:
            item_source = ItemParquet(
                items, store.schema, id_column=id_column, text_ids=store.text_ids
            )
        elif item_source and store.text_ids:
            item_source.renumber(store.text_ids)
        sources = [HistoryParquet(path, store.text_ids) for path in histories]
        mark = identity([*items, *histories], f"{len(items)} {id_column} {store.schema.layout}")
        job = LoadJob(store, item_source, sources, mark)
        report = LoadReport(sources=mark) if restart else await job.resumed()
        with ProgressBar() as bar:
            tasks = {
                number: bar.task(
                    "items" if number == 0 else histories[number - 1].name,
                    phase.rows,
                    _done(report, number, phase.rows),
                )
                for number, phase in enumerate(job.phases)
                if phase is not None
            }
            with written(rejects):
                report = await job.run(
                    report, rejects, lambda phase, row: bar.at(tasks[phase], row)
                )
        warnings = item_source.warnings if item_source else []
        return report, [*warnings, *(warning for h in sources for warning in h.warnings)]


async def _kind_of_ids(url: str) -> IdKind | None:
    """Return the kind of a store's ids; None if there is no store yet."""
    try:
        async with opened(url) as store:
            return "numeric" if store.text_ids is None else "mapped"
    except StoreMismatch:
        return None


def _fitting(
    items: list[Path], schema: Path, id_column: str | None, text_ids: TextIds | None
) -> ItemParquet:
    """Open item files. Raises DataFileError, before a store is created, if none of the first rows
    fits the schema."""
    source = ItemParquet(items, FeatureSchema.read(schema), id_column=id_column, text_ids=text_ids)
    batch = next(source.batches(PROBED_ROWS), None)
    if batch is not None and batch.rejected and not len(batch.ids):
        raise DataFileError(
            f"{batch.rejected[0]}; none of the first {batch.next_row:,} rows fits {schema}: "
            "is it the schema of these files?"
        )
    return source


def _done(report: LoadReport, phase: int, rows: int) -> int:
    """Rows of a phase that a stopped load has completed."""
    if phase == report.phase:
        return report.row
    return rows if phase < report.phase else 0


def _tell(
    report: LoadReport, warnings: list[str], rejects: Path, seconds: float, as_json: bool
) -> None:
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    if report.rejected:
        typer.echo(f"{report.rejected} rows rejected: see {rejects}", err=True)
    if as_json:
        reported = report.model_dump(include=REPORTED)
        typer.echo(orjson.dumps(reported | {"warnings": warnings, "seconds": round(seconds, 3)}))
    else:
        cut = f" ({report.cut:,} of them truncated)" if report.cut else ""
        lost = report.history_rows - report.histories - report.superseded
        lost_items = report.rejected - lost
        refused = f" ({lost_items:,} rows rejected)" if lost_items else ""
        Console().print(
            f"loaded {report.items:,} items{refused} and the histories of {report.histories:,} "
            f"users{cut}, from {report.history_rows:,} rows; {report.superseded:,} superseded, "
            f"{lost:,} rejected; in {seconds:,.1f} s",
            soft_wrap=True,
        )
