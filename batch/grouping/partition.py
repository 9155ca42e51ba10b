"""Partitions records into files on disk, in the order in which they come.

The folder gets its name when all of it is written: it is whole or absent.
"""

from __future__ import annotations

import shutil
from collections.abc import Sized
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch.errors import BatchError
from batch.output.folder import naming, sync
from batch.output.sealed import digest_of_file, sealed, unsealed
from feature_store.contract import Ids

ABOUT = "lengths.json"  # records and digest of each file
MIXED = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ / φ: neighbouring ids get distant buckets
HALF = np.uint64(32)

Records = NDArray[np.void]
Hashes = NDArray[np.uint64]


class Partition:
    """Writes records to ``buckets`` files. Few are open at a time, so there may be many."""

    def __init__(self, folder: Path, record: np.dtype[Any], buckets: int, held_bytes: int) -> None:
        """``held_bytes``: of records in memory, which are written together."""
        self._folder, self._partial = folder, folder.with_name(folder.name + ".partial")
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        self._most = max(1, held_bytes // record.itemsize)
        self._lengths = np.zeros(buckets, np.int64)
        self._held: list[tuple[Records, Ids]] = []
        self._count = 0

    @property
    def folder(self) -> Path:
        """The folder while it is written."""
        return self._partial

    def add(self, records: Records, bucket: Ids) -> None:
        """Add records (N,), each to its bucket (N,)."""
        self._held.append((records, bucket))
        self._count += len(records)
        if self._count >= self._most:
            self._write()

    def flush(self) -> None:
        """Write what is held, and force it to disk."""
        self._write()
        for number in np.flatnonzero(self._lengths == 0).tolist():
            (self._partial / name_of(number)).touch()
        for path in self._partial.iterdir():
            sync(path)

    def finish(self) -> None:
        """Give the folder its name."""
        about = {
            "lengths": self._lengths.tolist(),
            "digests": [digest_of_file(path) for path in _files(self._partial, self._lengths)],
        }
        with naming(self._folder):
            (self._partial / ABOUT).write_bytes(sealed(about))
            sync(self._partial / ABOUT)
        sync(self._partial)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._partial.rename(self._folder)
        sync(self._folder.parent)

    def abandon(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self._partial, ignore_errors=True)

    def _write(self) -> None:
        if not self._count:
            return
        records, bucket = (np.concatenate(each) for each in zip(*self._held, strict=True))
        self._held, self._count = [], 0
        order = np.argsort(bucket, kind="stable")
        with naming(self._folder):
            self._append(records, bucket, order)

    def _append(self, records: Records, bucket: Ids, order: Ids) -> None:
        numbers, starts = np.unique(bucket[order], return_index=True)
        ends = [*starts[1:].tolist(), len(order)]
        for number, start, end in zip(numbers.tolist(), starts.tolist(), ends, strict=True):
            with (self._partial / name_of(number)).open("ab") as file:
                file.write(records[order[start:end]].tobytes())
            self._lengths[number] += end - start


def is_whole(folder: Path) -> bool:
    """Whether all files are there, as they were written. Reads them."""
    about = unsealed(folder / ABOUT)
    if about is None:
        return False
    files, digests = _files(folder, about["lengths"]), list[str](about["digests"])
    return [digest_of_file(path) for path in files] == digests


def lengths_of(folder: Path) -> list[int]:
    """Return how many records each bucket has. BatchError if that cannot be read."""
    about = unsealed(folder / ABOUT)
    if about is None:
        raise BatchError(f"{folder / ABOUT}: missing or damaged; run the same command again")
    found: list[int] = about["lengths"]
    return found


def _files(folder: Path, lengths: Sized) -> list[Path]:
    return [folder / name_of(number) for number in range(len(lengths))]


def name_of(bucket: int) -> str:
    return f"bucket-{bucket:05d}.records"


def mixed(values: Ids, after: Hashes | None = None) -> Hashes:
    """(N,) hash of each value; with ``after``, that of another one, of both."""
    found: Hashes = values.astype(np.int64).view(np.uint64)
    if after is not None:
        found = found ^ (after ^ (after >> HALF))
    return found * MIXED


def bucket_of(hashes: Hashes, buckets: int) -> Ids:
    """(N,) bucket of each hash."""
    found: Ids = ((hashes >> HALF) % np.uint64(buckets)).astype(np.int64)
    return found
