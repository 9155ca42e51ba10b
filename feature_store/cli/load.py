"""``load``: write parquet files to a store."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
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
    UserFiles,
    UserIdColumn,
    opened,
    refusals,
    written,
)
from feature_store.cli.losses import Losses
from feature_store.errors import StoreMismatch
from feature_store.options import IdKind, StoreOptions
from feature_store.parquet.clicked_items import ClickedItems
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.histories import HistoryParquet
from feature_store.parquet.items import ItemParquet
from feature_store.parquet.load import LoadJob, LoadReport, identity
from feature_store.parquet.users import user_parquet
from feature_store.schema import FeatureSchema
from feature_store.terminal import printable
from feature_store.text_ids import TextIds, new_key

PROBED_ROWS = 1024
REPORTED = {
    *("items", "histories", "users", "empty", "cut", "rejected"),
    *("joined_to_nothing", "differing", "clicked_items", "unknown_items", "superseded"),
}
REJECTED = 3  # exit code: loaded, but rows were rejected


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """The files of a load."""

    items: list[Path]
    histories: list[Path]
    users: list[Path]
    id_column: str | None
    user_id_column: str | None

    def item_source(self, schema: FeatureSchema, text_ids: TextIds | None) -> ItemParquet:
        return ItemParquet(self.items, schema, id_column=self.id_column, text_ids=text_ids)

    def user_source(self, schema: FeatureSchema, text_ids: TextIds | None) -> ItemParquet:
        return user_parquet(self.users, schema, id_column=self.user_id_column, text_ids=text_ids)

    def mark(self, schema: FeatureSchema) -> str:
        """Identify the files and what decides how they are read, for resuming."""
        options = f"{len(self.items)} {self.id_column} {schema.layout}"
        if self.users:
            options += f" {len(self.users)} {self.user_id_column} {schema.user_layout}"
        return identity([*self.items, *self.histories, *self.users], options)


def load(
    store_url: StoreUrl,
    schema: SchemaFile = None,
    items: ItemFiles = None,
    histories: HistoryFiles = None,
    users: UserFiles = None,
    id_column: IdColumn = None,
    user_id_column: UserIdColumn = None,
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
    """Insert and replace items, histories and user records; --schema creates a missing store.

    After an interruption, the same command resumes.

    Exit code: 0, complete; 3, without the rejected rows; 1, failed.
    """
    if not (items or histories or users):
        raise typer.BadParameter("give --items, --histories or --users")
    options = StoreOptions(budget_ms=PATIENCE_MS, partitions=partitions, ids=ids)
    began = time.perf_counter()
    with refusals():
        loaded, warnings = asyncio.run(
            _load(
                store_url,
                schema,
                SourceFiles(items or [], histories or [], users or [], id_column, user_id_column),
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
    files: SourceFiles,
    rejects: Path,
    options: StoreOptions,
    restart: bool,
) -> tuple[LoadReport, list[str]]:
    item_source: ItemParquet | None = None
    if schema:
        kind = await _kind_of_ids(url)
        if options.ids in (None, kind or options.ids):  # else the store is refused below
            stand_in = TextIds(new_key()) if "mapped" in (kind, options.ids) else None
            read = FeatureSchema.read(schema)
            if files.items:
                item_source = files.item_source(read, stand_in)
                _probe(item_source, schema)
            if files.users:
                _probe(files.user_source(read, stand_in), schema)
            for path in files.histories:
                HistoryParquet.probe(path, stand_in)
    async with opened(url, schema, create=True, options=options) as store:
        if files.items and item_source is None:
            item_source = files.item_source(store.schema, store.text_ids)
        elif item_source and store.text_ids:
            item_source.renumber(store.text_ids)
        user_source = files.user_source(store.schema, store.text_ids) if files.users else None
        sources = [HistoryParquet(path, store.text_ids) for path in files.histories]
        losses = await Losses.watched(store, "load")
        mark = files.mark(store.schema) + losses.servers
        job = LoadJob(store, item_source, sources, mark, user_source)
        report = LoadReport(sources=mark) if restart else await job.resumed()
        names = ["items", *(path.name for path in files.histories), "users"]
        with ProgressBar() as bar:
            tasks = {
                number: bar.task(names[number], phase.rows, _done(report, number, phase.rows))
                for number, phase in enumerate(job.phases)
                if phase is not None
            }
            with written(rejects):
                report = await job.run(
                    report, rejects, lambda phase, row: bar.at(tasks[phase], row)
                )
        clicked = ClickedItems(store)
        await clicked.look_up(zip(files.histories, sources, strict=True))
        report.clicked_items, report.unknown_items = clicked.distinct, clicked.unknown
        opened_files = [item_source, *sources, user_source, clicked]
        warnings = [warning for one in opened_files if one for warning in one.warnings]
        return report, warnings + await losses.found(url, store)


async def _kind_of_ids(url: str) -> IdKind | None:
    """Return the kind of a store's ids; None if there is no store yet."""
    try:
        async with opened(url) as store:
            return "numeric" if store.text_ids is None else "mapped"
    except StoreMismatch:
        return None


def _probe(source: ItemParquet, schema: Path) -> None:
    """Raise DataFileError, before a store is created, if none of the first rows fits the schema."""
    batch = next(source.batches(PROBED_ROWS), None)
    if batch is not None and batch.rejected and not len(batch.ids):
        raise DataFileError(
            f"{batch.rejected[0]}; none of the first {batch.next_row:,} rows fits {schema}: "
            "is it the schema of these files?"
        )


def _done(report: LoadReport, phase: int, rows: int) -> int:
    """Rows of a phase that a stopped load has completed."""
    if phase == report.phase:
        return report.row
    return rows if phase < report.phase else 0


def _tell(
    report: LoadReport, warnings: list[str], rejects: Path, seconds: float, as_json: bool
) -> None:
    for warning in warnings:
        typer.echo(f"warning: {printable(warning)}", err=True)
    if report.rejected:
        typer.echo(f"{report.rejected} rows rejected: see {rejects}", err=True)
    if as_json:
        reported = report.model_dump(include=REPORTED)
        typer.echo(orjson.dumps(reported | {"warnings": warnings, "seconds": round(seconds, 3)}))
    else:
        lost = report.history_rows - report.histories - report.superseded
        lost_items = report.rejected - report.rejected_users - lost
        refused = f" ({lost_items:,} rows rejected)" if lost_items else ""
        Console().print(
            f"loaded {report.items:,} items{refused} and the histories of {report.histories:,} "
            f"users{_of_histories(report)}, from {report.history_rows:,} rows; "
            f"{report.superseded:,} superseded, {lost:,} rejected{_of_users(report)}; "
            f"in {seconds:,.1f} s",
            soft_wrap=True,
        )


def _of_histories(report: LoadReport) -> str:
    counts = {"truncated": report.cut, "empty, which are not kept": report.empty}
    told = [f"{count:,} of them {what}" for what, count in counts.items() if count]
    return f" ({', '.join(told)})" if told else ""


def _of_users(report: LoadReport) -> str:
    if not report.users and not report.rejected_users:
        return ""
    return f"; {report.users:,} user records ({report.rejected_users:,} rows rejected)"
