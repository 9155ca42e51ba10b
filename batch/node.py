"""Checks that a machine can do the units of a run that was begun on another one."""

from __future__ import annotations

import socket
from pathlib import Path

import orjson

from batch.errors import BatchError
from batch.job import Job
from batch.output.folders import folder_of
from batch.output.manifest import RECIPE
from batch.processor import processor_kind
from model_export.bundle.manifest import MANIFEST

SURVEY = "survey.json"  # in the work folder


def check_node(job: Job) -> None:
    """BatchError where the machine lacks a folder of the run, or is of another kind of processor.

    A folder of the same name that is not the same folder is found out, too.
    """
    host, recipe = socket.gethostname(), job.recipe
    kind = processor_kind()
    if kind != recipe.processor and not job.other_processors:
        raise BatchError(
            f"node {host}: its processor is {kind}, and the run was begun on {recipe.processor}: "
            "scores may differ in their last bits; leave the node out, or give "
            "--allow-other-processor"
        )
    if not (job.bundle / MANIFEST).exists():
        raise BatchError(f"node {host}: has no bundle {job.bundle}; mount it under that name")
    data = folder_of(job.output).read(RECIPE)
    if data is None or next(recipe.differences(_recipe_of(data)), None):
        raise BatchError(
            f"node {host}: --output {job.output} is not the run's folder there; give a volume that "
            "all nodes mount, or an object store"
        )
    work = Path(job.work)
    between = recipe.columns.layout == "rows" or recipe.clicks is not None
    if between and not (work / SURVEY).exists():
        raise BatchError(
            f"node {host}: does not see the work folder {work}, where rows are grouped; give "
            "--work a volume that all nodes mount"
        )


def _recipe_of(data: bytes) -> dict[str, object]:
    found: dict[str, object] = orjson.loads(data)
    found.pop("other_processors", None)
    return found
