"""Histories at any moment, for back-tests: clicks of a file, sorted by user and time on disk.

A bucket holds some users' clicks as int64 columns (3, N): user, time, item; by user, then time,
then their order in the file.
"""

from __future__ import annotations

import os
import shutil
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from batch.grouping.spill import bucket_of
from batch.inputs.columns import read_times
from batch.inputs.source import ELEMENTS
from batch.output.folder import sync
from feature_store.contract import Ids
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.id_columns import IdReader
from feature_store.parquet.parts import ParquetParts
from feature_store.text_ids import TextIds

USER, ITEM, TIME = "user_id", "item_id", "time"
BUCKET_CLICKS = 2_000_000
MOST_BUCKETS = 1024  # open files
MAPPED = 64  # buckets at a time
ABOUT = "about.json"

Click = NDArray[np.int64]


def is_moment(kind: pa.DataType) -> bool:
    """Whether times of this type are moments, which do not compare with numbers."""
    return bool(pa.types.is_timestamp(kind))


def build_index(parts: ParquetParts, folder: Path, text_ids: TextIds | None) -> None:
    """Sort all clicks into ``folder``, which is whole or absent. DataFileError names the first
    fault."""
    for name in (USER, ITEM, TIME):
        parts.require(name)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        buckets = max(1, min(MOST_BUCKETS, -(-parts.rows // BUCKET_CLICKS)))
        _partition(parts, partial, IdReader(text_ids), buckets)
        for number in range(buckets):
            _sort(partial, number)
        (partial / ABOUT).write_bytes(orjson.dumps({"buckets": buckets}))
        sync(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _partition(parts: ParquetParts, folder: Path, ids: IdReader, buckets: int) -> None:
    files: list[IO[bytes]] = [
        open(folder / _raw(number), "wb")  # noqa: SIM115 — closed below
        for number in range(buckets)
    ]
    try:
        for first, file, arrays in parts.batches((USER, ITEM, TIME), ELEMENTS):
            users = ids.column(arrays[USER], f"{file}: column {USER}")
            items = ids.column(arrays[ITEM], f"{file}: column {ITEM}")
            late: dict[int, str] = {}
            times = read_times(arrays[TIME], f"{file}: column {TIME}", late.update)
            for name, faults in ((USER, users.faults), (ITEM, items.faults), (TIME, late)):
                for row, reason in sorted(faults.items())[:1]:
                    raise DataFileError(str(parts.rejected(first + row, name, reason)))
            clicks = np.stack([users.values, times, items.values], 1)
            bucket = bucket_of(users.values, buckets)
            order = np.argsort(bucket, kind="stable")
            edges = np.searchsorted(bucket[order], np.arange(buckets + 1))
            clicks = clicks[order]
            for number in np.flatnonzero(np.diff(edges)).tolist():
                files[number].write(clicks[edges[number] : edges[number + 1]].tobytes())
    finally:
        for opened in files:
            opened.close()


def _sort(folder: Path, number: int) -> None:
    clicks = np.fromfile(folder / _raw(number), np.int64).reshape(-1, 3)
    order = np.lexsort((clicks[:, 1], clicks[:, 0]))  # stable
    with (folder / _sorted(number)).open("wb") as file:
        np.save(file, np.ascontiguousarray(clicks[order].T))
        file.flush()
        os.fsync(file.fileno())
    (folder / _raw(number)).unlink()


class Clicks:
    """Reads an index; its files are mapped."""

    def __init__(self, folder: Path, longest: int) -> None:
        self._folder, self._longest = folder, longest
        self._buckets: int = orjson.loads((folder / ABOUT).read_bytes())["buckets"]
        self._mapped = lru_cache(MAPPED)(self._map)

    def history(self, user: int, time: int) -> Ids:
        """Return the user's last items before ``time``, newest first."""
        number = int(bucket_of(np.array([user]), self._buckets)[0])
        users, times, items = self._mapped(number)
        start = int(np.searchsorted(users, user))
        end = int(np.searchsorted(users, user, side="right"))
        before = start + int(np.searchsorted(times[start:end], time))
        found: Ids = np.array(items[max(start, before - self._longest) : before][::-1])
        return found

    def _map(self, number: int) -> Click:
        found: Click = np.load(self._folder / _sorted(number), mmap_mode="r")
        return found


def _raw(bucket: int) -> str:
    return f"bucket-{bucket:05d}.raw"


def _sorted(bucket: int) -> str:
    return f"bucket-{bucket:05d}.npy"
