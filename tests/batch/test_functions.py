"""Lists scored within another engine have the scores of a run."""

from __future__ import annotations

import os
import pickle
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
DAFT = """
import sys
import daft
from batch.functions import ScoreLists

source, bundle, store, output = sys.argv[1:]


@daft.cls
class Scores:
    def __init__(self, bundle, store):
        self.score = ScoreLists(bundle, store)

    @daft.method.batch(return_dtype=daft.DataType.list(daft.DataType.float32()))
    def __call__(self, users, items):
        return self.score(users.to_arrow(), items.to_arrow())


lists = daft.read_parquet(source)
lists = lists.with_column("scores", Scores(bundle, store)(lists["user_id"], lists["item_ids"]))
lists.write_parquet(output)
"""


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
    path = os.pathsep.join(p for p in (os.environ.get("PYTHONPATH", os.getcwd()), PACKAGES) if p)
    words = (str(source), str(world.bundle.path), world.store, str(tmp_path / "out"))
    done = subprocess.run(
        [sys.executable, "-c", DAFT, *words],
        env=os.environ | {"PYTHONPATH": path, "DAFT_ANALYTICS_ENABLED": "0", "DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = pq.read_table(tmp_path / "out").sort_by("label").to_pylist()
    by_label = {row["label"]: row["scores"] for row in found}
    assert [by_label[f"list {n}"] for n in range(len(wanted))] == wanted
