"""Memory of a run's processes is bounded by a setting, whatever the input."""

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
ROWS = 1_200_000


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
def test_a_large_input_takes_no_more_than_the_setting(world: World, tmp_path: Path) -> None:
    found = {}
    for rows in (10, ROWS):
        source = tmp_path / f"{rows}.parquet"
        pq.write_table(wide(world, rows), source, row_group_size=rows)
        output = tmp_path / str(rows)
        options = ("--memory", "16MB", "--max-candidates", "1000", "--keep", "note")
        command = line(world, source, output, *options, "--workers", "2")
        found[rows] = highest(command, code=3 if rows == ROWS else 0)
    assert manifest(tmp_path / str(ROWS))["counts"]["items_rejected"] == ROWS
    processes = 3
    assert found[ROWS] - found[10] < processes * MEMORY, found
