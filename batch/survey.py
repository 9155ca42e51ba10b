"""Reads all of the input once, before anything is scored: checks it, counts it, spills its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from batch.grouping.spill import Spill
from batch.inputs.columns import RequestReader
from batch.inputs.source import ELEMENTS
from batch.job import Columns
from feature_store.parquet.columns import DataFileError, RejectedRow
from feature_store.parquet.parts import ParquetParts
from feature_store.schema import FeatureSchema
from feature_store.text_ids import TextIds

LIST_ROWS = 128  # read at a time: a list may be long


@dataclass(slots=True)
class Survey:
    """What an input holds."""

    rows: int = 0
    candidates: int = 0
    rejected: int = 0


class Surveyor:
    """Checks an input; rows with faults are written to ``rejects``, up to ``most`` of them."""

    def __init__(
        self,
        parts: ParquetParts,
        columns: Columns,
        schema: FeatureSchema,
        text_ids: TextIds | None,
        *,
        most: int,
        most_candidates: int,
    ) -> None:
        self._parts, self._columns = parts, columns
        self._reader = RequestReader(columns, schema, text_ids, most_candidates)
        self._most = most

    def run(
        self, rejects: Path, spill: Spill | None, progress: Callable[[int], None] = lambda _: None
    ) -> Survey:
        """Read everything. DataFileError names file, row and column of the first fault that is one
        too many."""
        found = Survey()
        rows = ELEMENTS if self._columns.layout == "rows" else LIST_ROWS
        with rejects.open("wb") as lines:
            for first, file, arrays in self._parts.batches(self._columns.read, rows):
                requests = self._reader.read(file, arrays)
                for at, (column, reason) in sorted(requests.faults.items()):
                    rejected = self._parts.rejected(first + at, column, reason)
                    found.rejected += 1
                    if found.rejected > self._most:
                        raise DataFileError(too_many(rejected, self._most))
                    lines.write(as_line(first + at, rejected))
                count = len(requests)
                if spill is not None:
                    spill.add(np.arange(first, first + count), requests)
                found.rows += count
                found.candidates += len(requests.items)
                progress(found.rows)
        if spill is not None:
            spill.finish()
        return found


def too_many(rejected: RejectedRow, most: int) -> str:
    """Word the fault that ends a run."""
    if most == 0:
        return f"{rejected}; to go on without such rows give --max-rejects"
    return f"{rejected}; more than --max-rejects {most} rows are like this"


def as_line(row: int, rejected: RejectedRow) -> bytes:
    """Return a rejected row as a JSON line. ``row`` counts across the files."""
    fields = {
        "input_row": row,
        "file": rejected.file,
        "row": rejected.row,
        "column": rejected.column,
        "reason": rejected.reason,
    }
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
