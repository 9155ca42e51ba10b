"""Partitions rows by user into files on disk, so that a user's rows can be found together.

A bucket is a file of records, in the order of the rows. The folder gets its name when all of it is
written: it is whole or absent.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from batch.errors import BatchError
from batch.inputs.requests import Requests
from batch.job import Columns
from batch.output.folder import sync
from feature_store.contract import Ids
from feature_store.schema import FeatureSchema, Numeric

LENGTHS = "lengths.json"
MIXED = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ / φ: neighbouring ids get distant buckets
FILE_BUFFER = 1 << 16


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

    def __init__(self, folder: Path, columns: Columns, schema: FeatureSchema, buckets: int) -> None:
        self._folder, self._partial = folder, folder.with_name(folder.name + ".partial")
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        self._columns, self._record = columns, record_of(columns, schema)
        self._lengths = [0] * buckets
        self._files: list[IO[bytes]] = [
            open(self._partial / _name(number), "wb", FILE_BUFFER)  # noqa: SIM115 — see ``finish``
            for number in range(buckets)
        ]

    def add(self, rows: Sequence[int] | NDArray[np.int64], requests: Requests) -> None:
        """Add requests of one candidate each; ``rows``: their numbers (N,). Faulty ones are left
        out."""
        records = records_of(rows, requests, self._columns, self._record)
        bucket = bucket_of(records["user"], len(self._files))
        order = np.argsort(bucket, kind="stable")
        records = records[order]
        edges = np.searchsorted(bucket[order], np.arange(len(self._files) + 1))
        for number in np.flatnonzero(np.diff(edges)).tolist():
            start, end = int(edges[number]), int(edges[number + 1])
            self._files[number].write(records[start:end].tobytes())
            self._lengths[number] += end - start

    def finish(self) -> None:
        """Give the folder its name."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        (self._partial / LENGTHS).write_bytes(orjson.dumps(self._lengths))
        sync(self._partial)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._partial.rename(self._folder)
        sync(self._folder.parent)

    def abandon(self) -> None:
        """Remove what was written."""
        for file in self._files:
            file.close()
        shutil.rmtree(self._partial, ignore_errors=True)


def records_of(
    rows: Sequence[int] | NDArray[np.int64],
    requests: Requests,
    columns: Columns,
    record: np.dtype[Any],
) -> NDArray[np.void]:
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


def read_bucket(folder: Path, number: int, record: np.dtype[Any]) -> NDArray[np.void]:
    """Read one bucket (N,). BatchError if it is not as long as it was written."""
    records = np.fromfile(folder / _name(number), record)
    length = orjson.loads((folder / LENGTHS).read_bytes())[number]
    if len(records) != length:
        raise BatchError(
            f"{folder / _name(number)}: {len(records)} records instead of {length}; remove "
            f"{folder} and run again"
        )
    return records


def bucket_of(users: Ids, buckets: int) -> Ids:
    """(N,) bucket of each user."""
    mixed = users.astype(np.uint64) * MIXED
    found: Ids = ((mixed >> np.uint64(32)) % np.uint64(buckets)).astype(np.int64)
    return found


def _name(bucket: int) -> str:
    return f"bucket-{bucket:05d}.records"
