"""Derives sizes of parts, buckets and buffers from the memory that a process may take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batch.errors import BatchError
from batch.job import Columns

MEMORY = 256_000_000  # bytes
LEAST_MEMORY = 16_000_000
# Estimates: bytes of a candidate while its part or bucket is scored and written, and of each
# further column that is read. tests/batch/test_memory.py holds what follows against processes.
OF_CANDIDATE, OF_COLUMN = 256, 48
OF_REQUEST = 4  # requests are scored so many at a time
COPIES = 3  # of the columns that are passed through
PART_CANDIDATES = 262_144
HELD = 8  # part of memory that rows take while they are partitioned
OF_CLICK = 128  # bytes, while a bucket of clicks is sorted


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of one run."""

    memory: int
    of_candidate: int
    part_candidates: int

    @classmethod
    def of(cls, memory: int, columns: Columns, part_candidates: int | None, longest: int) -> Sizes:
        """``part_candidates``: asked for; None: as many as are usual and fit. ``longest``: of a
        request. BatchError if memory is short of one of them."""
        each = of_candidate(columns)
        if memory < LEAST_MEMORY:
            raise BatchError(f"--memory {memory}: at least {LEAST_MEMORY} bytes are needed")
        needed = OF_REQUEST * longest * each
        if needed > memory:
            raise BatchError(
                f"--memory {memory}: lists of --max-candidates {longest} need {needed} bytes; "
                "raise one, or lower the other"
            )
        most = memory // each
        if part_candidates is not None and part_candidates > most:
            raise BatchError(
                f"--part-candidates {part_candidates}: needs {part_candidates * each} bytes, above "
                f"--memory {memory}"
            )
        return cls(memory, each, part_candidates or min(PART_CANDIDATES, most))

    def buckets(self, rows: int) -> int:
        """Number of buckets of about a part's rows, with room for chance."""
        return -(-rows * 5 // (4 * self.part_candidates))

    @property
    def part_bytes(self) -> int:
        return self.part_candidates * self.of_candidate

    @property
    def held_bytes(self) -> int:
        return self.memory // HELD

    @property
    def bucket_clicks(self) -> int:
        return self.memory // OF_CLICK


def of_candidate(columns: Columns) -> int:
    """Return the bytes of a candidate."""
    own = len(columns.context) + len(columns.features) + (columns.time is not None)
    return OF_CANDIDATE + OF_COLUMN * own


class Edges:
    """Chooses where parts begin: each weighs ``most`` bytes at most, or is one row."""

    def __init__(self, most: int) -> None:
        self._most, self._left = most, most
        self._row = 0
        self._starts = [0]

    def add(self, weights: NDArray[np.int64]) -> None:
        """Add rows (N,) by their weight."""
        sums, at = np.cumsum(weights), 0
        while at < len(sums):
            before = int(sums[at - 1]) if at else 0
            end = int(np.searchsorted(sums, before + self._left, side="right"))
            row = self._row + at
            if end == at:  # the next row has no room here
                if row == self._starts[-1]:
                    end = at + 1
                else:
                    self._starts.append(row)
                    self._left = self._most
                    continue
            self._left = max(0, self._left - int(sums[end - 1]) + before)
            at = end
        self._row += len(sums)

    def finish(self) -> tuple[int, ...]:
        """Return all starts, and the number of rows."""
        return (*self._starts, self._row) if self._row else (0,)
