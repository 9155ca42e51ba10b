"""A machine that cannot do the units of a run says which folder it lacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from batch.errors import BatchError
from batch.job import Job
from batch.node import check_node
from batch.options import Options
from batch.output.folder import Folder
from batch.progress import Progress
from batch.run import prepare
from tests.batch.inputs import write
from tests.service.world import World


@pytest.fixture
def job(world: World, tmp_path: Path) -> Job:
    """Of a run that is about to begin."""
    source = write(pa.table({"user_id": [1], "item_id": [2]}), tmp_path / "in.parquet")
    options = Options(world.models, world.store, str(source), str(tmp_path / "out"), workers=1)
    return prepare(options, Folder(tmp_path / "out"), Progress(as_json=True)).job


def test_the_machine_of_the_run_can(job: Job) -> None:
    check_node(job)


def test_folders_that_are_not_there_or_are_others_are_named(job: Job, tmp_path: Path) -> None:
    def refused(**changes: object) -> str:
        with pytest.raises(BatchError, match=r"^node ") as caught:
            check_node(replace(job, **changes))  # type: ignore[arg-type]
        return str(caught.value)

    assert "is not the run's folder there" in refused(output=str(tmp_path / "none"))
    Folder(tmp_path / "other").put(
        "_job.json", job.recipe.json().replace(b'"rows": 1', b'"rows": 2')
    )
    assert "is not the run's folder there" in refused(output=str(tmp_path / "other"))
    assert "--work a volume that all nodes mount" in refused(work=str(tmp_path / "none"))
    assert f"has no bundle {tmp_path}" in refused(bundle=tmp_path)


def test_another_kind_of_processor_scores_only_where_that_is_allowed(job: Job) -> None:
    recipe = replace(job.recipe, processor="x86_64 AuthenticAMD/25/1")
    Folder(Path(job.output)).put("_job.json", recipe.json())
    with pytest.raises(BatchError, match="begun on x86_64 AuthenticAMD/25/1: scores may differ"):
        check_node(replace(job, recipe=recipe))
    check_node(replace(job, recipe=recipe, other_processors=True))
