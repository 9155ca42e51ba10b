"""``score``: score every row or list of an input."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from batch.cli.app import refusals
from batch.dry_run import dry_run as foretold
from batch.engines.local import LocalEngine
from batch.inputs.columns import Naming
from batch.job import Cut
from batch.options import Options
from batch.progress import Progress
from batch.run import Engines, run
from batch.sizes import MEMORY
from feature_store.terminal import printable

REJECTED = 3  # exit code: complete, but rows were rejected
MOST, LARGEST = 2**31 - 1, 2**53  # of a count, of a size in bytes


UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def size_of(text: str | int) -> int:
    """Read a number of bytes, such as 256MB, 1.5GB or 512MiB."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]I?|)B?", str(text).upper())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no size, such as 256MB or 1GiB")
    number = float(found[1]) * UNITS[found[2]]
    if number > LARGEST:
        raise typer.BadParameter(f"{text!r} is above {LARGEST} bytes")
    return int(number)


class On(StrEnum):
    """Where the workers run."""

    LOCAL = "local"
    RAY = "ray"


def score(
    bundle: Annotated[
        Path, typer.Option(help="Bundle, or a folder of bundles, of which the newest scores.")
    ],
    store: Annotated[str, typer.Option(help="URL of the feature store.")],
    input: Annotated[  # noqa: A002 — the option's name
        str,
        typer.Option(
            metavar="PATH",
            help="Parquet file, folder of them, or a log of requests (.jsonl); s3://… too.",
        ),
    ],
    output: Annotated[str, typer.Option(metavar="FOLDER", help="Folder of the parts; s3://… too.")],
    on: Annotated[On, typer.Option(help="Processes of this machine, or a Ray cluster.")] = On.LOCAL,
    workers: Annotated[
        int, typer.Option(min=0, max=MOST, help="Worker processes; 0: one per core.")
    ] = 0,
    user_column: Annotated[str, typer.Option(help="Column of user ids.")] = "user_id",
    item_column: Annotated[
        str | None,
        typer.Option(help="Column of item ids, or of lists of them; item_ids or item_id."),
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Pass this column through; repeat.")
    ] = None,
    clicks: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Back-test: parquet of user_id, item_id, time; clicks before a row's own time are "
            "its history, instead of the store's.",
        ),
    ] = None,
    time_column: Annotated[str, typer.Option(help="Column of times, with --clicks.")] = "time",
    top_k: Annotated[
        int | None, typer.Option(min=1, max=MOST, help="Keep a user's k best alone.")
    ] = None,
    threads_as: Annotated[
        int,
        typer.Option(min=1, max=MOST, help="Engine threads of the service whose bits are wanted."),
    ] = Cut().threads_as,
    chunk: Annotated[
        int, typer.Option(min=1, max=MOST, help="QIN_CHUNK_CANDIDATES of that service.")
    ] = Cut().chunk,
    min_chunk: Annotated[
        int, typer.Option(min=1, max=MOST, help="QIN_MIN_CHUNK_CANDIDATES of that service.")
    ] = Cut().min_chunk,
    max_rejects: Annotated[
        int, typer.Option(min=0, max=MOST, help="Go on while at most so many rows are rejected.")
    ] = 0,
    max_candidates: Annotated[
        int, typer.Option(min=1, max=MOST, help="Reject longer lists.")
    ] = 100_000,
    memory: Annotated[
        int,
        typer.Option(
            parser=size_of, metavar="SIZE", help="Of each process, beside model and table: 256MB."
        ),
    ] = MEMORY,
    part_candidates: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST, help="Candidates of a part, at most; by default what --memory allows."
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of intermediate files; else in --output."),
    ] = None,
    table_folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of the item table; by default in /dev/shm."),
    ] = None,
    allow_other_processor: Annotated[
        bool, typer.Option("--allow-other-processor", help="Go on with what another kind began.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the input, and say what a run would do.")
    ] = False,
    metrics: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Textfile of metrics, for node exporter.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print events as JSON lines.")] = False,
) -> None:
    """Score rows (user_id, item_id) or lists (user_id, item_ids) to parquet, as the service does.

    After an interruption, the same command goes on; the output is the same.

    Exit code: 0, complete; 3, without the rejected rows; 1, failed.
    """
    options = Options(
        bundle=bundle,
        store=store,
        input=input,
        output=output,
        workers=workers,
        naming=Naming(user_column, item_column, time_column if clicks else None, tuple(keep or ())),
        cut=Cut(chunk, min_chunk, threads_as),
        top_k=top_k,
        max_rejects=max_rejects,
        max_candidates=max_candidates,
        memory=memory,
        part_candidates=part_candidates,
        table_folder=table_folder,
        work=work,
        allow_other_processor=allow_other_processor,
        clicks=clicks,
    )
    progress = Progress(as_json=as_json, metrics=metrics)
    with refusals(progress):
        progress.write()  # a file that cannot be written is found out now
        if dry_run:
            _foretell(foretold(options, progress), progress)
            return
        began = perf_counter()
        manifest = run(options, engine_of(on), progress)
        _tell(manifest, output, perf_counter() - began, progress)
    if _rejected(manifest):
        raise typer.Exit(REJECTED)


def engine_of(on: On) -> Engines:
    """Return what builds the engine."""
    if on is On.RAY:
        from batch.engines.ray import RayEngine  # takes an extra

        return RayEngine
    return LocalEngine


def _foretell(found: dict[str, Any], progress: Progress) -> None:
    progress.event("dry_run", found)
    time = "no time" if found["seconds"] is None else f"about {found['seconds']:,.0f} s"
    progress.say(
        f"would score {found['candidates_left']:,} of {found['candidates']:,} candidates in "
        f"{found['rows']:,} rows (layout: {found['layout']}) with {found['model_version']}: "
        f"{found['parts_left']:,} of {_number(found['parts'], 'part')}, "
        f"{_number(found['workers'], 'worker')}, {time}; "
        f"contexts: {', '.join(found['context']) or 'as stored'}; request features: "
        f"{', '.join(found['features']) or 'none'}; rejected rows: {found['rejected_rows']:,}"
    )


def _rejected(manifest: dict[str, Any]) -> int:
    return int(manifest["counts"].get("users_rejected", 0))


def _tell(manifest: dict[str, Any], output: str, seconds: float, progress: Progress) -> None:
    counts = manifest["counts"]
    fields = {"output": output, "seconds": round(seconds, 3), "digest": manifest["digest"]}
    progress.event("complete", {**fields, "counts": counts, "parts": len(manifest["parts"])})
    what = ", ".join(f"{count:,} {name.replace('_', ' ', 1)}" for name, count in counts.items())
    parts = _number(len(manifest["parts"]), "part")
    progress.say(printable(f"{parts} in {output}, in {seconds:,.1f} s: {what}"))


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
