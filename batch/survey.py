"""Reads all of the input once, before anything is scored: checks it, counts it, spills its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from batch.grouping.spill import Spill
from batch.inputs.columns import RequestReader
from batch.inputs.long_lists import Faults, without_long
from batch.inputs.requests import Requests
from batch.inputs.source import Batch, cut, rows_at_once, wide_columns
from batch.job import Columns
from batch.output.folder import naming
from batch.sizes import COPIES, Edges, Sizes
from feature_store.parquet.columns import DataFileError, RejectedRow
from feature_store.parquet.parts import ParquetParts
from feature_store.schema import FeatureSchema
from feature_store.text_ids import TextIds


@dataclass(slots=True)
class Survey:
    """What an input holds."""

    rows: int = 0
    candidates: int = 0
    rejected: int = 0
    edges: tuple[int, ...] = (0,)  # see ``Recipe``


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
        sizes: Sizes,
    ) -> None:
        self._parts, self._columns = parts, columns
        self._reader = RequestReader(columns, schema, text_ids)
        self._most, self._most_candidates, self._sizes = most, most_candidates, sizes
        self._wide = wide_columns(parts, columns.kept)

    def run(
        self, rejects: Path, spill: Spill | None, progress: Callable[[int], None] = lambda _: None
    ) -> Survey:
        """Read everything. DataFileError names file, row and column of the first fault that is one
        too many."""
        found, columns = Survey(), self._columns
        edges = Edges(self._sizes.part_bytes)
        at_once = rows_at_once(self._parts, columns)
        names = tuple(dict.fromkeys((*columns.read, *self._wide)))
        with naming(rejects), rejects.open("wb") as lines:
            for batch in self._parts.batches(names, at_once):
                for first, file, arrays, left_out in self._cut(batch):
                    requests = self._reader.read(file, arrays, left_out)
                    for at, (column, reason) in sorted(requests.faults.items()):
                        rejected = self._parts.rejected(first + at, column, reason)
                        found.rejected += 1
                        if found.rejected > self._most:
                            raise DataFileError(too_many(rejected, self._most))
                        lines.write(as_line(first + at, rejected))
                    if spill is not None:
                        spill.add(np.arange(first, first + len(requests)), requests)
                    edges.add(self._weights(requests, arrays))
                    found.rows += len(requests)
                    found.candidates += len(requests.items)
                    progress(found.rows)
        if spill is not None:
            spill.finish()
        found.edges = edges.finish()
        return found

    def _cut(self, batch: Batch) -> Iterator[tuple[*Batch, Faults]]:
        """Cut a batch without its lists that are too long."""
        first, file, whole = batch
        arrays, left_out = without_long(whole, self._columns, self._most_candidates)
        for start, _, part in cut((first, file, arrays), self._columns.item):
            within = range(start - first, start - first + len(part[self._columns.user]))
            yield (
                start,
                file,
                part,
                {row - within.start: why for row, why in left_out.items() if row in within},
            )

    def _weights(self, requests: Requests, arrays: Mapping[str, pa.Array]) -> NDArray[np.int64]:
        """(N,) bytes of each row, while its part is written."""
        wide = sum(arrays[name].nbytes for name in self._wide)
        passed = COPIES * wide // max(1, len(requests))
        lengths = np.maximum(1, np.diff(requests.starts))
        weights: NDArray[np.int64] = lengths * self._sizes.of_candidate + passed
        return weights


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
