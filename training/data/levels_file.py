"""Writes levels as parquet: a row per item and day, per item, or a column joined to rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.parquet.columns import DataFileError
from feature_store.parquet.table import ParquetTable, files_of
from feature_store.parquet.whole_file import whole_file
from training.data.levels import BATCH_ROWS, ITEM, Clicks, joined, levels_of, read_days
from training.output import writing
from training.progress import OnProgress, no_progress

DAY = "day"
GROUP_ROWS = 1_000_000  # per row group, at least


@dataclass(frozen=True, slots=True)
class Written:
    """What a file of levels holds."""

    rows: int
    items: int
    clicks: int
    first_day: str
    last_day: str


def write_levels(
    clicks: Clicks, out: Path, column: str, on_progress: OnProgress = no_progress
) -> Written:
    """Write ``item_id``, ``day`` and the level, for each item with a click before the day."""
    if column in ("", ITEM, DAY):
        raise DataFileError(f"--column {column}: the file has {ITEM}, {DAY} and a level's column")
    schema = pa.schema([(ITEM, pa.int64()), (DAY, pa.date32()), (column, pa.int8())])
    first, last = int(clicks.day.min()) + 1, int(clicks.day.max()) + 1
    rows, waiting = 0, schema.empty_table()
    with _whole(out, schema) as file:
        for day, levels in clicks.by_day():
            at = np.flatnonzero(levels)
            days = np.full(len(at), day, np.int32)
            part = [
                pa.array(clicks.items[at]),
                pa.array(days).cast(pa.date32()),
                pa.array(levels[at]),
            ]
            waiting = pa.concat_tables([waiting, pa.table(part, schema=schema)])
            rows += len(at)
            if len(waiting) >= GROUP_ROWS or day == last:
                file.write_table(waiting)
                waiting = schema.empty_table()
            on_progress("levels by day", day - first + 1, last - first + 1)
    return _written(clicks, rows)


def write_last(clicks: Clicks, out: Path, column: str) -> Written:
    """Write ``item_id`` and the level on the day after the last click, for each clicked item."""
    if column in ("", ITEM):
        raise DataFileError(f"--column {column}: the file has {ITEM} and a level's column")
    levels = levels_of(np.bincount(clicks.item))
    table = pa.table({ITEM: clicks.items, column: levels})
    with _whole(out, table.schema) as file:
        file.write_table(table)
    return _written(clicks, len(levels))


def write_joined(
    clicks: Clicks,
    source: Path,
    out: Path,
    column: str,
    unit: str | None,
    on_progress: OnProgress = no_progress,
) -> Written:
    """Write the rows of ``source`` with the level of their item on their day as a column."""
    levels = joined(clicks, *read_days(source, unit, on_progress))
    files = files_of(source)
    schema = pq.read_schema(files[0])
    if column in ("", *schema.names):
        raise DataFileError(f"{source}: has a column {column} already: give another --column")
    start = 0
    names = schema.names
    with _whole(out, schema.append(pa.field(column, pa.int8()))) as file:
        for path in files:
            table = ParquetTable(path)
            if table.schema.remove_metadata() != schema.remove_metadata():
                raise DataFileError(f"{path}: other columns than {files[0]}")
            for _, arrays in table.batches(names, BATCH_ROWS, unwrap=False):
                part = arrays | {column: pa.array(levels[start : start + len(arrays[ITEM])])}
                file.write_table(pa.table(part).cast(file.schema))
                start += len(arrays[ITEM])
                on_progress(f"write {out.name}", start, len(levels))
    return _written(clicks, len(levels))


def _written(clicks: Clicks, rows: int) -> Written:
    ends = np.array([clicks.day.min(), clicks.day.max()]).astype("datetime64[D]")
    return Written(rows, len(clicks.items), len(clicks.day), str(ends[0]), str(ends[1]))


@contextmanager
def _whole(out: Path, columns: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Yield a writer of ``out``. Errors of the system are those of writing it."""
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(out, columns) as file:
            yield file
