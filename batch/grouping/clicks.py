"""Histories at any moment, for back-tests: clicks of a file, sorted by user and time on disk.

A bucket holds some users' clicks as int64 columns (3, N): user, time, item; by user, then time,
then their order in the file.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pyarrow as pa

from batch.grouping.partition import Partition, bucket_of, lengths_of, mixed, name_of
from batch.inputs.columns import read_times
from batch.inputs.source import ELEMENTS
from batch.output.folder import naming, sync
from feature_store.contract import Ids
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.id_columns import IdReader
from feature_store.parquet.parts import ParquetParts
from feature_store.text_ids import TextIds

USER, ITEM, TIME = "user_id", "item_id", "time"
CLICK = np.dtype([("user", "i8"), ("time", "i8"), ("item", "i8")])
BUCKET_CLICKS = 2_000_000
HELD_BYTES = 1 << 25


def is_moment(kind: pa.DataType) -> bool:
    """Whether times of this type are moments, which do not compare with numbers."""
    return bool(pa.types.is_timestamp(kind))


def build_index(
    parts: ParquetParts,
    folder: Path,
    text_ids: TextIds | None,
    bucket_clicks: int = BUCKET_CLICKS,
    held_bytes: int = HELD_BYTES,
) -> None:
    """Sort all clicks into ``folder``, which is whole or absent. DataFileError names the first
    fault.

    ``bucket_clicks``: sorted in memory at a time, about. ``held_bytes``: see ``Partition``.
    """
    for name in (USER, ITEM, TIME):
        parts.require(name)
    buckets = max(1, -(-parts.rows // bucket_clicks))
    files = Partition(folder, CLICK, buckets, held_bytes)
    try:
        _partition(parts, files, IdReader(text_ids), buckets)
        files.flush()
        for number in range(buckets):
            _sort(files.folder / name_of(number))
        files.finish()
    finally:
        files.abandon()


def _partition(parts: ParquetParts, files: Partition, ids: IdReader, buckets: int) -> None:
    for first, file, arrays in parts.batches((USER, ITEM, TIME), ELEMENTS):
        users = ids.column(arrays[USER], f"{file}: column {USER}")
        items = ids.column(arrays[ITEM], f"{file}: column {ITEM}")
        late: dict[int, str] = {}
        times = read_times(arrays[TIME], f"{file}: column {TIME}", late.update)
        for name, faults in ((USER, users.faults), (ITEM, items.faults), (TIME, late)):
            for row, reason in sorted(faults.items())[:1]:
                raise DataFileError(str(parts.rejected(first + row, name, reason)))
        clicks = np.empty(len(times), CLICK)
        clicks["user"], clicks["time"], clicks["item"] = users.values, times, items.values
        files.add(clicks, bucket_of(mixed(users.values), buckets))


def _sort(path: Path) -> None:
    clicks = np.fromfile(path, CLICK)
    order = np.lexsort((clicks["time"], clicks["user"]))  # stable
    with naming(path), path.open("wb") as file:
        for name in ("user", "time", "item"):
            file.write(clicks[name][order].tobytes())
    sync(path)


class Clicks:
    """Reads an index."""

    def __init__(self, folder: Path, longest: int) -> None:
        self._folder, self._longest = folder, longest
        self._lengths = lengths_of(folder)

    def history(self, user: int, time: int) -> Ids:
        """Return the user's last items before ``time``, newest first."""
        number = int(bucket_of(mixed(np.array([user])), len(self._lengths))[0])
        if not self._lengths[number]:
            return np.zeros(0, np.int64)
        # Mapped for this history alone: pages of a kept mapping would count as resident.
        with (
            (self._folder / name_of(number)).open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping,
        ):
            users, times, items = np.frombuffer(mapping, np.int64).reshape(3, -1)
            start, end = np.searchsorted(users, user), np.searchsorted(users, user, side="right")
            before = start + np.searchsorted(times[start:end], time)
            found: Ids = np.array(items[max(start, before - self._longest) : before][::-1])
            del users, times, items
        return found
