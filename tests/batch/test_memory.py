"""Memory of a run's processes is bounded by a setting and does not grow with the input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.batch.command import line, manifest
from tests.batch.measure_memory import highest
from tests.service.world import World

MEMORY = 16_000_000
FEW, MANY = 100_000, 800_000


def wide(world: World, rows: int) -> pa.Table:
    """All rows of one user: no list that is scored, and no bucket of equal size."""
    notes = pa.array([f"{n:0200d}" for n in range(50)])
    return pa.table(
        {
            "user_id": np.ones(rows, np.int64),
            "item_id": np.full(rows, world.ids[0]),
            "note": pa.DictionaryArray.from_arrays(np.arange(rows) % 50, notes),
        }
    )


@pytest.mark.timeout(240)
def test_a_larger_input_takes_no_more_memory(world: World, tmp_path: Path) -> None:
    found = {}
    for rows in (FEW, MANY):
        source = tmp_path / f"{rows}.parquet"
        pq.write_table(wide(world, rows), source, row_group_size=rows)
        options = ("--memory", "16MB", "--max-candidates", "1000", "--keep", "note")
        command = line(world, source, tmp_path / str(rows), *options, "--workers", "2")
        found[rows] = highest(command, code=3)
        assert manifest(tmp_path / str(rows))["counts"]["items_rejected"] == rows
    processes = 3
    assert found[MANY] - found[FEW] < processes * MEMORY, found
