"""One run from end to end: survey, plan, score, put together, verify.

    input -> survey (checked, counted; rows are spilled by user)
          -> lists: score parts
          -> rows: score buckets of users -> put each part's rows together
          -> manifest

Everything between is in a work folder, by digest of what it was made of: a run that is killed goes
on where it was, with any number of workers and either engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from importlib.metadata import version as installed
from pathlib import Path
from socket import gethostname
from typing import Any

import feature_store
from batch.agreement import agreed, record
from batch.engines.engine import Engine
from batch.grouping.clicks import TIME, build_index, is_moment
from batch.grouping.partition import is_whole
from batch.grouping.spill import Spill
from batch.inputs.columns import columns_of
from batch.inputs.source import digest_of, open_input
from batch.inputs.stamps import refuse_changes, stamps_now, stamps_of
from batch.job import Columns, Job, Recipe
from batch.node import SURVEY
from batch.options import Options
from batch.output.bucket_scores import scored_buckets
from batch.output.folder import Folder
from batch.output.folders import AnyFolder, folder_of
from batch.output.manifest import finish, note_of
from batch.output.sealed import digest_of_file, sealed, unsealed
from batch.processor import processor_kind
from batch.progress import Progress
from batch.scoring.scorer import STORE
from batch.sizes import Sizes
from batch.survey import Survey, Surveyor
from batch.table_place import check_table_folder, remove_table, table_place
from batch.units import Unit
from batch.work_folder import make_work, refuse_overlap, remove_work
from batch.worker import CLICKS, SPILL
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.parts import ParquetParts
from feature_store.schema import FeatureSchema
from feature_store.text_ids import TextIds
from model_export.bundle.bundle import Bundle, newest
from model_export.bundle.manifest import MANIFEST as BUNDLE_MANIFEST

LIBRARIES = ("numpy", "onnxruntime", "pyarrow")
REJECTED = "rejects.jsonl"

Engines = Callable[[Job, int], Engine]


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that is about to begin: its job, what the input holds, and the store's items."""

    job: Job
    parts: ParquetParts
    survey: Survey
    schema: FeatureSchema
    items: int  # in the store
    about: dict[str, Any]
    mixed: list[str]  # kinds of processors that have scored, besides the recipe's

    @property
    def recipe(self) -> Recipe:
        return self.job.recipe


def run(options: Options, engines: Engines, progress: Progress) -> dict[str, Any]:
    """Score everything that is not scored yet; return the manifest.

    BatchError, DataFileError, StoreError, BundleError or OSError: nothing half-written is left, and
    the same command goes on.
    """
    folder = folder_of(options.output)
    with folder.locked():
        folder.sweep()
        plan = prepare(options, folder, progress)
        recipe, job = plan.recipe, plan.job
        missing = missing_parts(folder, recipe)
        own_table = job.table_folder is None and bool(missing)
        if own_table:
            place = table_place(options.output, plan.schema, plan.items)
            job = replace(job, table_folder=place)
        engine = engines(job, options.workers)
        try:
            scored = scored_buckets(Path(job.work), recipe.buckets) if missing else set()
            _begin(plan, missing, scored, engine, progress)
            for units in stages(recipe, missing, scored):
                for done in engine.run(units):
                    parts = done.unit.kind != "bucket"
                    progress.advance(candidates=done.candidates, parts=int(parts))
                    if done.processor not in (recipe.processor, *plan.mixed):
                        plan.mixed.append(done.processor)
                        record(recipe, plan.mixed, folder)
        finally:
            engine.close()
            for each in (folder, Folder(Path(job.work))):
                each.sweep()  # what workers that were ended had half written
            if own_table:
                remove_table(job.table_folder)
        about = plan.about | {"other_processors": sorted(plan.mixed)}
        manifest = finish(folder, recipe, plan.parts, Path(job.work) / REJECTED, about)
        remove_work(options, Path(job.work))
        progress.complete()
        return manifest


def prepare(options: Options, folder: AnyFolder, progress: Progress, *, dry: bool = False) -> Plan:
    """Open bundle, store and input, survey the input, and agree with what the output holds.

    ``dry``: without a spill, and without a word in the output.
    """
    refuse_overlap(options)
    if options.table_folder is not None:
        check_table_folder(options.table_folder)
    given = options.bundle
    bundle = Bundle.open(given) if (given / BUNDLE_MANIFEST).exists() else newest(given)
    text_ids, items = asyncio.run(_store_of(options.store, bundle))
    files = stamps_of(options.input)
    parts = open_input(options.input, files)
    columns = columns_of(parts, bundle.schema, options.naming)
    clicked = {} if options.clicks is None else stamps_of(str(options.clicks))
    clicks = None if options.clicks is None else _clicks_of(options.clicks, parts, columns)
    progress.say(f"reading {parts}: {parts.rows:,} rows")
    sizes = Sizes.of(options.memory, columns, options.part_candidates, options.max_candidates)
    recipe = Recipe(
        input=digest_of(parts, options.input),
        rows=parts.rows,
        version=bundle.version,
        bundle=sha256((bundle.path / BUNDLE_MANIFEST).read_bytes()).hexdigest(),
        columns=columns,
        cut=options.cut,
        top_k=options.top_k,
        max_candidates=options.max_candidates,
        part_candidates=sizes.part_candidates,
        memory=sizes.memory,
        buckets=sizes.buckets(parts.rows) if columns.layout == "rows" else 0,
        clicks=None if clicks is None else digest_of(clicks, str(options.clicks)),
        processor=processor_kind(),
        libraries={name: installed(name) for name in LIBRARIES},
    )
    recipe, mixed = agreed(recipe, folder, options.allow_other_processor)
    work = make_work(options, recipe)
    try:
        if clicks is not None and not dry and not is_whole(work / CLICKS):
            build_index(clicks, work / CLICKS, text_ids, sizes.bucket_clicks, sizes.held_bytes)
        survey = _surveyed(options, parts, bundle, text_ids, recipe, sizes, work, spill=not dry)
        for source, before in ((options.input, files), (str(options.clicks), clicked)):
            refuse_changes(before, stamps_now(source, list(before)))
    except BaseException:
        remove_work(options, work)
        raise
    recipe = replace(recipe, edges=survey.edges)
    if not dry:
        record(recipe, mixed, folder)
    job = Job(
        recipe=recipe,
        input=options.input,
        output=options.output,
        work=str(work),
        bundle=bundle.path,
        store=options.store,
        table_folder=options.table_folder,
        files=files,
        host=gethostname(),
        other_processors=options.allow_other_processor,
    )
    counted = {"candidates": survey.candidates, "rejected_rows": survey.rejected}
    return Plan(job, parts, survey, bundle.schema, items, {"input": counted}, mixed)


def missing_parts(folder: AnyFolder, recipe: Recipe) -> list[tuple[int, int]]:
    """Return the input rows of parts that are not there yet."""
    there = folder.names()
    return [
        (start, end)
        for start, end in recipe.parts()
        if (name := recipe.part_name(start, end)) not in there
        or note_of(folder, name, recipe, (start, end)) is None
    ]


def stages(
    recipe: Recipe, missing: list[tuple[int, int]], scored: set[int]
) -> Iterable[list[Unit]]:
    """Yield the units that are still to be done; those of a list need what is before them.
    ``scored``: buckets."""
    if not missing:
        return
    if recipe.columns.layout == "lists":
        yield [Unit("lists", n, *span) for n, span in enumerate(missing)]
        return
    yield [Unit("bucket", n) for n in range(recipe.buckets) if n not in scored]
    yield [Unit("rows", n, *span) for n, span in enumerate(missing)]


def _begin(
    plan: Plan,
    missing: list[tuple[int, int]],
    scored: set[int],
    engine: Engine,
    progress: Progress,
) -> None:
    survey, recipe = plan.survey, plan.recipe
    left = sum(end - start for start, end in missing)
    if recipe.columns.layout == "rows" and missing:
        left = survey.rows - survey.rows * len(scored) // max(1, recipe.buckets)
    done = survey.candidates - survey.candidates * left // max(1, survey.rows)
    parts = len(recipe.parts())
    progress.begin(
        candidates=survey.candidates,
        done=done,
        parts=parts,
        parts_done=parts - len(missing),
        workers=engine.workers,
    )
    progress.say(
        f"scoring {survey.candidates:,} candidates in {survey.rows:,} rows with {recipe.version}: "
        f"{len(missing):,} of {parts:,} parts to write, {engine.workers} workers"
    )


async def _store_of(url: str, bundle: Bundle) -> tuple[TextIds | None, int]:
    """Open the store with the bundle's schema; StoreMismatch names features that differ."""
    store = await feature_store.connect(url, bundle.schema, options=STORE)
    try:
        return store.text_ids, await store.count_items()
    finally:
        await store.close()


def _clicks_of(path: Path, parts: ParquetParts, columns: Columns) -> ParquetParts:
    """Open the clicks of a back-test. DataFileError unless all times, of the input too, are of one
    kind."""
    clicks = open_input(str(path))
    clicks.require(TIME)
    assert columns.time is not None, "named with the clicks"
    there = parts.tables[0].kind(columns.time)
    times = [(table, TIME) for table in clicks.tables]
    for table, column in [*times, *((table, columns.time) for table in parts.tables)]:
        here = table.kind(column)
        if is_moment(here) is not is_moment(there):
            raise DataFileError(
                f"{table.path}: column {column}: holds {here}, and column {columns.time} of "
                f"{parts.path} {there}: write both as timestamps, or both as integers"
            )
    return clicks


def _surveyed(
    options: Options,
    parts: ParquetParts,
    bundle: Bundle,
    text_ids: TextIds | None,
    recipe: Recipe,
    sizes: Sizes,
    work: Path,
    *,
    spill: bool,
) -> Survey:
    """Survey the input, unless an earlier run has. The spill and its counts are whole or absent."""
    columns: Columns = recipe.columns
    spills, before = columns.layout == "rows" and spill, unsealed(work / SURVEY)
    if (
        before is not None
        and before["rejects"] == digest_of_file(work / REJECTED)
        and (not spills or is_whole(work / SPILL))
    ):
        fields = before["survey"]
        return Survey(**fields | {"edges": tuple(fields["edges"])})
    surveyor = Surveyor(
        parts,
        columns,
        bundle.schema,
        text_ids,
        most=options.max_rejects,
        most_candidates=recipe.max_candidates,
        sizes=sizes,
    )
    into = None
    if spills:
        held = sizes.held_bytes
        into = Spill(work / SPILL, columns, bundle.schema, recipe.buckets, held)
    survey = surveyor.run(work / REJECTED, into)
    about = {"survey": asdict(survey), "rejects": digest_of_file(work / REJECTED)}
    Folder(work).put(SURVEY, sealed(about))
    return survey
