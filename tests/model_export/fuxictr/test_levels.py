"""The level variant from the authors' state_dict to the runtime, at small sizes.

``python -m tests.model_export.measure_levels --json`` does the same at the authors'."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.model_export.fuxictr.test_checkpoint import run, table, their_state
from tests.model_export.measure_levels import TOLERANCE, Sizes, measured
from training import checkpoint
from training.data.users import UserTable

__all__ = ["table"]  # a fixture

SMALL = {"users": 300, "items": 200, "tags": 50, "slots": 3, "history": 7}
OF_ANY_SIZES = {
    "content wider than the embeddings": Sizes(**SMALL, E=6, P=10, C=9, A=31, layers=3, rows=2),
    "content narrower": Sizes(**SMALL, E=9, P=4, C=5, A=16, layers=1, rows=1),
    "six layers": Sizes(**SMALL, E=4, P=4, C=4, A=7, layers=6, rows=4),
    "odd vocabularies": Sizes(
        users=2, items=401, tags=3, levels=2, slots=1, history=1, E=5, P=3, C=1, A=3, layers=2
    ),
    "a table that is mapped": Sizes(
        **SMALL | {"users": 70_001}, E=4, P=4, C=6, A=13, layers=5, rows=3
    ),
}


@pytest.mark.parametrize("sizes", OF_ANY_SIZES.values(), ids=OF_ANY_SIZES.keys())
def test_a_level_variant_of_any_sizes_answers_as_in_float64(sizes: Sizes) -> None:
    result = measured(sizes, cases=300)
    assert result["cases"] >= 300
    assert result["cases_of_unknown_users"] >= 80
    assert result["worst_error"] <= TOLERANCE
    assert result["worst_error_by_loops"] <= TOLERANCE
    assert result["mapped"] == (["user_id"] if result["user_table_bytes"] > 1 << 20 else [])


def test_a_users_file_gives_the_index_of_each_user(table: Path, tmp_path: Path) -> None:
    torch.save(their_state(users=9), tmp_path / "QIN.model")
    ids, index = [7_000_000_001, 12, 99], [3, 8, 1]
    pq.write_table(pa.table({"user_id": ids, "user_index": index}), tmp_path / "users.parquet")
    out = tmp_path / "checkpoint"
    given = (tmp_path / "QIN.model", "--items", table, "--out", out)
    code, told, error = run(*given, "--users", tmp_path / "users.parquet")
    assert code == 0, error
    assert told.endswith("user_index.parquet 3 users\n")
    network = checkpoint.load(out)
    assert network.schema.user_identity == "user_index"
    users = UserTable.read(out / checkpoint.USER_INDEX, network.schema)
    assert users.ids.tolist() == [12, 99, 7_000_000_001]
    np.testing.assert_array_equal(users.rows["user_index"], [8, 1, 3])


@pytest.mark.parametrize(
    ("columns", "users", "fault"),
    [
        ({"user_id": [1], "user_index": [9]}, 9, "user_index"),
        ({"user_id": [1, 1], "user_index": [2, 3]}, 9, "user_id|id 1"),
        ({"user_id": [1], "index": [2]}, 9, "has no column 'user_index'"),
        ({"user_id": [1], "user_index": [2]}, 0, "the checkpoint has no users"),
    ],
    ids=["beyond the vocabulary", "twice", "another column", "a plain checkpoint"],
)
def test_a_users_file_that_does_not_fit_is_refused(
    columns: dict[str, list[int]], users: int, fault: str, table: Path, tmp_path: Path
) -> None:
    torch.save(their_state(users=users), tmp_path / "QIN.model")
    pq.write_table(pa.table(columns), tmp_path / "users.parquet")
    given = (tmp_path / "QIN.model", "--items", table, "--out", tmp_path / "c")
    code, _, error = run(*given, "--users", tmp_path / "users.parquet")
    assert code == 1
    assert re.search(rf"^error: .*users\.parquet.*({fault})", error), error
    assert not (tmp_path / "c").exists()
