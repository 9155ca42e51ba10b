"""Lists scored within another engine have the scores of a run."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.errors import BatchError
from batch.functions import ScoreLists
from tests.batch.command import scored
from tests.batch.inputs import Lists, make_lists, write
from tests.service.world import World

PACKAGES = os.environ.get("DAFT_PACKAGES", "")  # a folder that daft is installed in, apart
HAS_DAFT = find_spec("daft") or (PACKAGES and Path(PACKAGES, "daft").is_dir())
HAS_SPARK = find_spec("pyspark") and shutil.which("java")
DOCS = Path(__file__).parents[2] / "docs" / "batch.md"
DAFT = """
import sys

source, bundle, store, output = sys.argv[1:]
{example}
lists = daft.read_parquet(source)
lists = lists.with_column("scores", Scores(bundle, store)(lists["user_id"], lists["item_ids"]))
lists.write_parquet(output)
"""
SPARK = """
import sys
from pyspark.sql import SparkSession

source, bundle, store, output = sys.argv[1:]
session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
session = session.config("spark.driver.bindAddress", "127.0.0.1")
session = session.config("spark.driver.host", "127.0.0.1").getOrCreate()
lists = session.read.parquet(source).select("user_id", "item_ids")
{example}
session.stop()
"""


def example_of(word: str) -> str:
    """The example of the documentation that has this word."""
    (found,) = (e for e in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S) if word in e)
    return str(found)


def run(program: str, *words: str) -> None:
    path = os.pathsep.join(p for p in (os.environ.get("PYTHONPATH", os.getcwd()), PACKAGES) if p)
    more = {"PYTHONPATH": path, "DAFT_ANALYTICS_ENABLED": "0", "DO_NOT_TRACK": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=os.environ | more | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def lists(world: World) -> Lists:
    return make_lists(world, 50)


@pytest.fixture(scope="module")
def wanted(world: World, lists: Lists, tmp_path_factory: pytest.TempPathFactory) -> list:
    folder = tmp_path_factory.mktemp("wanted")
    source = write(lists.table(), folder / "l.parquet")
    return scored(world, source, folder / "out")["scores"].to_pylist()


def test_scores_are_those_of_a_run_and_it_pickles(world: World, lists: Lists, wanted: list) -> None:
    function = ScoreLists(str(world.bundle.path), world.store)
    users, items = pa.array(lists.users), pa.array(list(lists.items))
    assert function(users, items).to_pylist() == wanted
    copy = pickle.loads(pickle.dumps(function))
    assert copy(users.slice(10, 5), items.slice(10, 5)).to_pylist() == wanted[10:15]


def test_a_fault_names_row_and_column(world: World) -> None:
    function = ScoreLists(str(world.bundle.path), world.store)
    with pytest.raises(BatchError, match="row 1, column item_ids: an empty list"):
        function(pa.array([1, 2]), pa.array([np.array([3]), np.array([], np.int64)]))


@pytest.mark.skipif(not HAS_DAFT, reason="daft is not installed: pip install daft")
def test_a_function_of_daft(world: World, lists: Lists, wanted: list, tmp_path: Path) -> None:
    source = write(lists.table(), tmp_path / "l.parquet")
    words = (str(source), str(world.bundle.path), world.store, str(tmp_path / "out"))
    run(DAFT.format(example=example_of("import daft")), *words)
    found = pq.read_table(tmp_path / "out").sort_by("label").to_pylist()
    by_label = {row["label"]: row["scores"] for row in found}
    assert [by_label[f"list {n}"] for n in range(len(wanted))] == wanted


@pytest.mark.skipif(not HAS_SPARK, reason="needs pip install pyspark, and Java")
def test_a_function_of_spark(world: World, lists: Lists, wanted: list, tmp_path: Path) -> None:
    source = write(lists.table(), tmp_path / "l.parquet")
    words = (str(source), str(world.bundle.path), world.store, str(tmp_path / "out"))
    example = example_of("mapInArrow").replace('"/srv/scores"', "output")
    for place, name in (("/srv/models/20261130T000000Z", "bundle"), ("redis://store", "store")):
        assert f'"{place}"' in example
        example = example.replace(f'"{place}"', name)
    run(SPARK.format(example=example), *words)
    found = pq.read_table(tmp_path / "out").to_pylist()
    by_user = {row["user_id"]: row["scores"] for row in found}
    assert [by_user[user] for user in lists.users] == wanted
