"""An input that changes while a run reads it: no row gets another row's scores."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.engines.local import LocalEngine
from batch.job import Job
from batch.options import Options
from batch.progress import Progress
from batch.run import run
from feature_store.parquet.columns import DataFileError
from tests.batch.command import parts, read
from tests.batch.inputs import make_lists, write
from tests.batch.workers import forked
from tests.service.world import World

COUNT = 40
LAYOUTS = pytest.mark.parametrize("layout", ["lists", "rows"])


def table(world: World, layout: str, seed: int) -> pa.Table:
    lists = make_lists(world, COUNT, longest=20, seed=seed)
    return lists.table() if layout == "lists" else lists.rows()


def changed_after_the_survey(
    world: World, source: Path, output: Path, change: Callable[[], object]
) -> None:
    """Run; the input changes when it was surveyed, and no worker has opened it."""

    def engine(job: Job, workers: int) -> LocalEngine:
        change()
        return LocalEngine(job, workers)

    options = Options(world.models, world.store, str(source), str(output), workers=1)
    with forked():
        run(options, engine, Progress())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


@LAYOUTS
def test_files_that_appear_are_no_part_of_the_run(
    world: World, source: Path, tmp_path: Path, layout: str
) -> None:
    write(table(world, layout, 1), source / "b.parquet")
    changed_after_the_survey(world, source, tmp_path / "wanted", lambda: None)
    other = table(world, layout, 2)
    changed_after_the_survey(
        world, source, tmp_path / "out", lambda: write(other, source / "a.parquet")
    )
    assert read(tmp_path / "out").equals(read(tmp_path / "wanted"))


@LAYOUTS
def test_a_file_that_is_written_again_ends_the_run(
    world: World, source: Path, tmp_path: Path, layout: str
) -> None:
    path = write(table(world, layout, 1), source / "a.parquet")
    other = table(world, layout, 2)
    with pytest.raises(Exception, match=f"{path}: was written to during the run"):
        changed_after_the_survey(world, source, tmp_path / "out", lambda: write(other, path))
    assert not parts(tmp_path / "out")


def test_a_file_of_the_same_size_is_known_by_its_time(
    world: World, source: Path, tmp_path: Path
) -> None:
    path = write(table(world, "lists", 1), source / "a.parquet")
    with pytest.raises(Exception, match="was written to during the run"):
        changed_after_the_survey(world, source, tmp_path / "out", lambda: os.utime(path, (1, 1)))


def test_a_file_that_vanishes_ends_the_run(world: World, source: Path, tmp_path: Path) -> None:
    path = write(table(world, "lists", 1), source / "a.parquet")
    with pytest.raises(Exception, match=f"{path}: .*no such file"):
        changed_after_the_survey(world, source, tmp_path / "out", path.unlink)


def test_a_file_that_changes_during_the_survey_ends_the_run(
    world: World, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(table(world, "lists", 1), source / "a.parquet")
    whole = pq.ParquetFile.iter_batches

    def written_meanwhile(*args: object, **options: object) -> object:
        os.utime(path, (1, 1))
        return whole(*args, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", written_meanwhile)
    with pytest.raises(DataFileError, match="was written to during the run"):
        changed_after_the_survey(world, source, tmp_path / "out", lambda: None)
    assert not (tmp_path / "out").exists()
