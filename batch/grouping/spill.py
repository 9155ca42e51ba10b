"""Partitions rows by request into files on disk, so that a request's rows can be found together.

A bucket is a file of records, in the order of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch.errors import BatchError
from batch.grouping.groups import keys_of
from batch.grouping.partition import (
    HALF,
    MIXED,
    Hashes,
    Partition,
    Records,
    bucket_of,
    lengths_of,
    mixed,
    name_of,
)
from batch.inputs.requests import Requests
from batch.job import Columns
from feature_store.schema import FeatureSchema, Numeric

READ_ROWS = 65_536


def record_of(columns: Columns, schema: FeatureSchema) -> np.dtype[Any]:
    """The record of a row: its number, what scoring reads of it."""
    kinds = {f.name: "f8" if isinstance(f, Numeric) else "i4" for f in schema.request}
    fields = [("row", "i8"), ("user", "i8"), ("item", "i8")]
    fields += [("time", "i8")] * (columns.time is not None)
    fields += [(f"c_{number}", "i4") for number in range(len(columns.context))]
    fields += [(f"f_{n}", kinds[name]) for n, name in enumerate(columns.features)]
    return np.dtype(fields)


class Spill:
    """Writes the buckets of an input in ``rows`` layout."""

    def __init__(
        self,
        folder: Path,
        columns: Columns,
        schema: FeatureSchema,
        buckets: int,
        held_bytes: int = 1 << 24,
    ) -> None:
        """``held_bytes``: see ``Partition``."""
        self._columns, self._record, self._buckets = columns, record_of(columns, schema), buckets
        self._files = Partition(folder, self._record, buckets, held_bytes)

    def add(self, rows: Sequence[int] | NDArray[np.int64], requests: Requests) -> None:
        """Add requests of one candidate each; ``rows``: their numbers (N,), ascending. Faulty ones
        are left out."""
        records = records_of(rows, requests, self._columns, self._record)
        self._files.add(records, bucket_of(hash_of(records, self._columns), self._buckets))

    def finish(self) -> None:
        """Give the folder its name."""
        self._files.flush()
        self._files.finish()

    def abandon(self) -> None:
        """Remove what was written."""
        self._files.abandon()


def records_of(
    rows: Sequence[int] | NDArray[np.int64],
    requests: Requests,
    columns: Columns,
    record: np.dtype[Any],
) -> Records:
    """Return the records of requests of one candidate each, without the faulty ones."""
    records = np.empty(len(requests), record)
    records["row"], records["user"], records["item"] = rows, requests.users, requests.items
    if requests.times is not None:
        records["time"] = requests.times
    for number, name in enumerate(columns.context):
        records[f"c_{number}"] = requests.context[name]
    for number, name in enumerate(columns.features):
        records[f"f_{number}"] = requests.features[name]
    return np.delete(records, list(requests.faults)) if requests.faults else records


def hash_of(records: Records, columns: Columns) -> Hashes:
    """(N,) hash of each row's request."""
    user, *others = keys_of(records, columns)
    found = mixed(user)
    for key in others:
        found = mixed(key, found)
    return found


class Bucket:
    """Reads a bucket. One that is longer than memory allows is read in rounds, each request within
    one of them; its requests of more than ``longest`` rows are apart."""

    def __init__(
        self,
        folder: Path,
        number: int,
        record: np.dtype[Any],
        columns: Columns,
        most: int,
        longest: int,
    ) -> None:
        """``most``: rows in memory, about. BatchError if it is not as long as it was written."""
        self._path, self._record, self._columns = folder / name_of(number), record, columns
        self._most, self._longest = most, longest
        length = lengths_of(folder)[number]
        self.rows = self._path.stat().st_size // record.itemsize
        if self._path.stat().st_size != length * record.itemsize:
            raise BatchError(
                f"{self._path}: {self.rows} records instead of {length}; run the same command again"
            )

    def rounds(self) -> Iterator[Records]:
        """Yield the rows of requests, each whole in one round, ascending by row."""
        if self.rows <= self._most:
            yield np.fromfile(self._path, self._record)
            return
        hashes, counts = self._too_long
        rounds = -(-(self.rows - int(counts.sum())) // self._most)
        for number in range(rounds):
            yield np.concatenate(
                [
                    records[~np.isin(of, hashes) & (_round_of(of, rounds) == number)]
                    for records, of in self._read()
                ]
            )

    def too_long(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield rows (N,) of requests above the limit, and how many rows the request of each has;
        ascending. Of a bucket read in one round none: its caller sees them."""
        if self.rows <= self._most:
            return
        hashes, counts = self._too_long
        if not len(hashes):
            return
        for records, of in self._read():
            chosen = np.isin(of, hashes)
            if chosen.any():
                of = of[chosen]
                yield records["row"][chosen].copy(), counts[np.searchsorted(hashes, of)]

    @cached_property
    def _too_long(self) -> tuple[Hashes, NDArray[np.int64]]:
        """Hashes (M,), ascending, of requests above the limit, and their rows (M,)."""
        hashes, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        for _, of in self._read():
            more, added = np.unique(of, return_counts=True)
            hashes, place = np.unique(np.concatenate([hashes, more]), return_inverse=True)
            whole = np.zeros(len(hashes), np.int64)
            np.add.at(whole, place, np.concatenate([counts, added]))
            counts = whole
        above = counts > self._longest
        return hashes[above], counts[above]

    def _read(self) -> Iterator[tuple[Records, Hashes]]:
        with self._path.open("rb") as file:
            while len(records := np.fromfile(file, self._record, READ_ROWS)):
                yield records, hash_of(records, self._columns)


def _round_of(hashes: Hashes, rounds: int) -> NDArray[np.int64]:
    """(N,) apart from the bucket, which the upper half decides."""
    again = (hashes ^ (hashes >> HALF)) * MIXED
    found: NDArray[np.int64] = ((again >> HALF) % np.uint64(rounds)).astype(np.int64)
    return found
