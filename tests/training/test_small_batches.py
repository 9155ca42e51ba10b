"""Batches of one row are refused before training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.fitting import RECIPE
from tests.training.worlds import small_rows
from training.loop.data_parallel import process_group
from training.loop.fit import fit
from training.loop.run import FitError


@pytest.mark.parametrize(
    ("rows", "batch_size", "smallest_batch", "message"),
    [
        (1, 128, 64, "train.parquet has one row"),
        (64, 1, 64, "batch_size is 1: .+ --set batch_size=2"),
        (65, 32, 1, "the last batch of 65 rows would be of one.+ --set smallest_batch=2"),
    ],
)
def test_a_batch_of_one_row_is_refused_with_the_remedy(
    tmp_path: Path, rows: int, batch_size: int, smallest_batch: int, message: str
) -> None:
    sizes = {"batch_size": batch_size, "smallest_batch": smallest_batch, "epochs": 1}
    recipe = RECIPE.model_copy(update=sizes)
    train, valid = small_rows(rows, seed=1), small_rows(100, seed=2)
    with process_group() as group, pytest.raises(FitError, match=message):
        fit(train, valid, recipe, tmp_path / "c", group)
    assert not list(tmp_path.iterdir())
    if smallest_batch == 1:
        remedied = recipe.model_copy(update={"smallest_batch": 2})
        with process_group() as group:
            fit(train, valid, remedied, tmp_path / "c", group)
