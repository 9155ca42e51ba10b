"""Says what a run would do and how long it would take, from a sample; writes nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from batch.grouping.groups import grouped
from batch.grouping.spill import record_of, records_of
from batch.inputs.columns import RequestReader
from batch.inputs.requests import Requests
from batch.inputs.source import open_input
from batch.options import Options
from batch.output.folders import folder_of
from batch.progress import Progress
from batch.run import Plan, missing_parts, prepare
from batch.scoring.scorer import Scorer

SAMPLE_S = 2.0
SAMPLE_ROWS = 16_384  # of rows layout: read and grouped at once
SAMPLE_LISTS = 16


def dry_run(options: Options, progress: Progress) -> dict[str, Any]:
    """Check the input, score some of it, and return counts and the estimated seconds."""
    with tempfile.TemporaryDirectory(prefix="qin-batch-") as work:
        folder = folder_of(options.output)
        plan = prepare(replace(options, work=Path(work)), folder, progress, dry=True)
        missing = missing_parts(folder, plan.recipe)
        rate = _rate(plan)
    survey, rows = plan.survey, sum(end - start for start, end in missing)
    left = survey.candidates * rows // max(1, survey.rows)
    cores = len(os.sched_getaffinity(0))
    workers = min(options.workers or cores, max(1, len(missing)))
    return {
        "layout": plan.recipe.columns.layout,
        "rows": survey.rows,
        "candidates": survey.candidates,
        "rejected_rows": survey.rejected,
        "context": list(plan.recipe.columns.context),
        "features": list(plan.recipe.columns.features),
        "model_version": plan.recipe.version,
        "parts": len(plan.recipe.parts()),
        "parts_left": len(missing),
        "candidates_left": left,
        "workers": workers,
        "candidates_per_second": round(rate * workers, 1),
        "seconds": round(left / (rate * workers), 3) if rate else None,
    }


def _rate(plan: Plan) -> float:
    """Candidates per second of one worker; 0 without a sample."""
    job = plan.job
    scorer = Scorer(job.bundle, job.store, job.recipe.cut, job.table_folder)
    scored, spent = 0, 0.0
    try:
        for requests in _samples(plan, scorer):
            began = perf_counter()
            scorer.score(requests)
            spent += perf_counter() - began
            scored += len(requests.items)
            if spent > SAMPLE_S:
                break
    finally:
        scorer.close()
    return scored / spent if spent else 0.0


def _samples(plan: Plan, scorer: Scorer) -> Iterator[Requests]:
    columns = plan.recipe.columns
    reader = RequestReader(columns, scorer.schema, scorer.store.text_ids)
    size = SAMPLE_ROWS if columns.layout == "rows" else SAMPLE_LISTS
    for first, file, arrays in open_input(plan.job.input, plan.job.files).batches(
        columns.read, size
    ):
        requests = reader.read(file, arrays)
        if columns.layout == "rows":
            rows = np.arange(first, first + len(requests))
            record = record_of(columns, scorer.schema)
            requests, _ = grouped(records_of(rows, requests, columns, record), columns)
        yield requests
