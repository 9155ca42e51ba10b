"""``check`` and ``export``: compare a store with parquet files; write it to parquet."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from feature_store.cli.app import (
    AsJson,
    HistoryFiles,
    IdColumn,
    ItemFiles,
    ProgressBar,
    StoreUrl,
    UserFiles,
    UserIdColumn,
    opened,
    refusals,
    written,
)
from feature_store.cli.load import SourceFiles
from feature_store.cli.losses import Losses
from feature_store.errors import StoreError
from feature_store.output_files import discard
from feature_store.parquet.check import Comparison
from feature_store.parquet.clicked_items import ClickedItems
from feature_store.parquet.export import (
    DAMAGED,
    HISTORIES,
    ITEMS,
    SCHEMA,
    USERS,
    WITHOUT_TEXT,
    ExportReport,
    StoreExport,
)
from feature_store.parquet.histories import USER, HistoryParquet
from feature_store.parquet.load import superseded
from feature_store.parquet.stored_texts import printed
from feature_store.parquet.whole_file import WholeFiles

DIFFERENT = 3  # exit code: differences, or records that could not be exported
REPORTED = (
    *("items", "histories", "users", "grown", "rejected", "differences"),
    *("joined_to_nothing", "differing", "clicked_items", "unknown_items", "superseded"),
    *("warnings", "store"),
)
SHOWN = 20  # differences printed; the file has all


def check(
    store_url: StoreUrl,
    items: ItemFiles = None,
    histories: HistoryFiles = None,
    users: UserFiles = None,
    id_column: IdColumn = None,
    user_id_column: UserIdColumn = None,
    differences: Annotated[
        Path, typer.Option(metavar="FILE", help="Output file of differences, as JSON lines.")
    ] = Path("differences.jsonl"),
    as_json: AsJson = False,
) -> None:
    """Compare a store with the parquet files it was loaded from.

    Exit code: 0, equal; 3, different; 1, failed.
    """
    if not (items or histories or users):
        raise typer.BadParameter("give --items, --histories or --users")
    files = SourceFiles(items or [], histories or [], users or [], id_column, user_id_column)
    with refusals():
        found = asyncio.run(_check(store_url, files, differences, as_json))
    report = {name: getattr(found, name) for name in REPORTED}
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        typer.echo(orjson.dumps(report))
    else:
        of_users = f" and {found.users:,} user records" if users else ""
        click = found.store.get("acknowledged_click", "unknown")
        typer.echo(f"an acknowledged click is {click}")
        Console().print(
            f"checked {found.items:,} items and {found.histories:,} histories "
            f"({found.grown:,} with clicks since){of_users}: {found.differences:,} differences"
        )
    if found.rejected:
        typer.echo(f"{found.rejected} rows of the files are invalid", err=True)
    if not found.differences:
        with refusals():
            discard(differences)
    else:
        typer.echo(f"all differences: {differences}", err=True)
        raise typer.Exit(DIFFERENT)


async def _check(url: str, files: SourceFiles, differences: Path, quiet: bool) -> Comparison:
    found = Comparison()
    async with opened(url) as store:
        sources = [HistoryParquet(path, store.text_ids) for path in files.histories]
        found.superseded = superseded(sources)
        found.warnings += [warning for source in sources for warning in source.warnings]
        with ProgressBar() as bar, written(differences), differences.open("wb") as file:
            checks = []
            if files.items:
                source = files.item_source(store.schema, store.text_ids)
                checks.append(("items", source.rows, found.check_items(store, source)))
            for at, history in enumerate(sources):
                later = found.check_histories(store, history, sources[at + 1 :])
                checks.append((files.histories[at].name, history.rows, later))
            if files.users:
                source = files.user_source(store.schema, store.text_ids)
                checks.append(("users", source.rows, found.check_users(store, source)))
            for name, rows, check_of_it in checks:
                task = bar.task(name, rows)
                bar.at(task, 0)
                async for difference in check_of_it:
                    file.write(orjson.dumps(asdict(difference)) + b"\n")
                    if found.differences <= SHOWN and not quiet:
                        identity = printed(store, difference.id)
                        bar.say(f"{difference.kind} {identity}: {difference.what}")
                    bar.at(task, found.row)
                bar.at(task, rows)
        clicked = ClickedItems(store)
        await clicked.look_up(zip(files.histories, sources, strict=True))
        found.clicked_items, found.unknown_items = clicked.distinct, clicked.unknown
        found.warnings += clicked.warnings
        try:
            found.store = await store.describe()
        except StoreError as error:  # e.g. INFO is not permitted; the comparison stands
            found.store = {"acknowledged_click": f"of unknown durability: {error}"}
    return found


def export(
    store_url: StoreUrl,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Created if missing.")],
    id_column: Annotated[str, typer.Option(help="Name of the id column.")] = "item_id",
    user_id_column: Annotated[
        str, typer.Option(help="Name of the id column of users.parquet.")
    ] = USER,
    as_json: AsJson = False,
) -> None:
    """Write a store to parquet files that `load` reads, and its schema beside them.

    Exit code: 0, complete; 3, without damaged records or those whose text id is missing; 1,
    failed.
    """
    with refusals():
        report, warnings = asyncio.run(_export(store_url, folder, id_column, user_id_column))
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        typer.echo(orjson.dumps(report.as_json()))
    else:
        of_users = f" and {report.users:,} user records" if report.users else ""
        Console().print(
            f"exported {report.items:,} items and {report.histories:,} histories{of_users} to "
            f"{folder}",
            markup=False,
            soft_wrap=True,
        )
    if report.histories_with_id_0:
        typer.echo(
            f"warning: {report.histories_with_id_0} histories hold item 0, which is padding in "
            f"{HISTORIES}: those clicks cannot be read back",
            err=True,
        )
    if report.without_text:
        typer.echo(
            f"warning: {report.without_text} items, users and clicks left out, whose numbers have "
            f"no text in the store: {report.examples(WITHOUT_TEXT)}",
            err=True,
        )
    if report.damaged:
        typer.echo(
            f"{report.damaged} damaged records left out: {report.examples(DAMAGED)}", err=True
        )
    if report.damaged or report.without_text:
        raise typer.Exit(DIFFERENT)


async def _export(
    url: str, folder: Path, id_column: str, user_id_column: str
) -> tuple[ExportReport, list[str]]:
    async with opened(url) as store:
        losses = await Losses.watched(store, "export")
        with ProgressBar() as bar, written(folder), WholeFiles() as files:
            writing = StoreExport(store, files)
            report = writing.report
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            task = bar.task("items", await store.count_items())
            async for _ in writing.items(folder / ITEMS, id_column):
                bar.at(task, report.items)
            task = bar.task("histories", await store.count_histories())
            async for _ in writing.histories(folder / HISTORIES):
                bar.at(task, report.histories)
            if store.schema.user:
                task = bar.task("users", await store.count_users())
                async for _ in writing.users(folder / USERS, user_id_column):
                    bar.at(task, report.users)
            files.put(folder / SCHEMA, store.schema.to_yaml().encode())
            warnings = await losses.found(url, store)
            files.finish()  # in place of an earlier export, which is kept until now
        if not store.schema.user and (folder / USERS).exists():
            warnings.append(f"{folder / USERS} is of an earlier export: the store has no users")
        return report, warnings
