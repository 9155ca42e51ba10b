"""Scores of a bucket's rows, by number of the row: between scoring and the parts.

A bucket has a file for each round in which it was scored, and at last one with the
digests of the files and the reasons of faults: without that it is not scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch.errors import BatchError
from batch.inputs.requests import Requests
from batch.output.folder import Folder
from batch.output.sealed import digest_of_file, sealed, unsealed
from batch.scoring.scores import REJECTED, REJECTED_USER, Scores
from model_export.bundle.top_k import best
from model_export.bundle.vectors import Positions

# rank: 1 is the best; 0: not asked for, or not among the k. why: 1 is the first reason; 0: none.
# Aligned: a search of an unaligned column copies all of it.
RECORD = np.dtype(
    [("row", "i8"), ("score", "f4"), ("rank", "i4"), ("why", "i4"), ("item", "u1"), ("user", "u1")],
    align=True,
)
Rows = NDArray[np.void]


def name_of(bucket: int) -> str:
    """The file that is written last."""
    return f"scored-{bucket:05d}.json"


def _file_of(bucket: int, number: int) -> str:
    return f"scores-{bucket:05d}-{number:03d}.records"


class BucketWriter:
    """Writes the scores of a bucket, and which of its rows have none and why."""

    def __init__(self, folder: Folder, bucket: int) -> None:
        self._folder, self._bucket = folder, bucket
        self._digests: list[str] = []
        self._reasons: dict[str, int] = {}

    def add(self, requests: Requests, rows: Positions, scores: Scores, top_k: int | None) -> None:
        """Add requests with scores; ``rows`` (E,): which row each candidate is of."""
        records = np.zeros(len(rows), RECORD)
        records["row"], records["score"], records["item"] = rows, scores.scores, scores.items
        records["user"] = np.repeat(scores.users, np.diff(requests.starts))
        if top_k is not None:
            for g in range(len(requests)):
                start, end = int(requests.starts[g]), int(requests.starts[g + 1])
                chosen = best(scores.scores[start:end], top_k)
                records["rank"][start + chosen] = np.arange(1, len(chosen) + 1)
        for g, reason in scores.faults.items():
            span = slice(int(requests.starts[g]), int(requests.starts[g + 1]))
            records["why"][span] = self._number_of(reason)
        self._put([records[np.argsort(records["row"], kind="stable")].tobytes()])

    def reject(self, parts: Iterable[tuple[Positions, list[str]]]) -> None:
        """Add rows, ascending, that have no scores, each with its reason."""
        self._put(self._rejected(rows, reasons) for rows, reasons in parts)

    def finish(self) -> None:
        """Write that all is written."""
        about = {"digests": self._digests, "reasons": list(self._reasons)}
        self._folder.put(name_of(self._bucket), sealed(about))

    def _rejected(self, rows: Positions, reasons: list[str]) -> bytes:
        records = np.zeros(len(rows), RECORD)
        records["row"], records["score"] = rows, np.nan
        records["item"], records["user"] = REJECTED, REJECTED_USER
        records["why"] = [self._number_of(reason) for reason in reasons]
        return records.tobytes()

    def _number_of(self, reason: str) -> int:
        return self._reasons.setdefault(reason, len(self._reasons) + 1)

    def _put(self, data: Iterable[bytes]) -> None:
        digest = sha256()

        def digested() -> Iterator[bytes]:
            for block in data:
                digest.update(block)
                yield block

        self._folder.put(_file_of(self._bucket, len(self._digests)), digested())
        self._digests.append(digest.hexdigest())


def scored_buckets(folder: Path, buckets: int) -> set[int]:
    """Return the buckets whose scores are there, as they were written. Reads them."""
    return {bucket for bucket in range(buckets) if _is_whole(folder, bucket)}


def _is_whole(folder: Path, bucket: int) -> bool:
    about = unsealed(folder / name_of(bucket))
    if about is None:
        return False
    digests: list[str] = about["digests"]
    files = (folder / _file_of(bucket, number) for number in range(len(digests)))
    return [digest_of_file(path) for path in files] == digests


class BucketScores:
    """The scores of all buckets."""

    def __init__(self, folder: Path, buckets: int) -> None:
        self._folder = folder
        self._files = [len(_about(folder, bucket)["digests"]) for bucket in range(buckets)]

    def rows(self, start: int, end: int) -> tuple[list[Rows], list[tuple[int, str]]]:
        """Records of the rows [start, end), in parts; and the rows that could not be scored, with
        the reasons."""
        found, faults = [], []
        for bucket, files in enumerate(self._files):
            for number in range(files):
                records = _mapped(self._folder / _file_of(bucket, number), start, end)
                found.append(records)
                faults += list(self._faults(bucket, records))
        return found, sorted(faults)

    def _faults(self, bucket: int, records: Rows) -> Iterator[tuple[int, str]]:
        wrong = records[records["why"] > 0]
        if len(wrong):
            reasons = _about(self._folder, bucket)["reasons"]
            for row, why in zip(wrong["row"].tolist(), wrong["why"].tolist(), strict=True):
                yield row, reasons[why - 1]


def _about(folder: Path, bucket: int) -> dict[str, Any]:
    path = folder / name_of(bucket)
    found: dict[str, Any] | None = unsealed(path)
    if found is None:
        raise BatchError(f"{path}: missing or damaged; run the same command again")
    return found


def _mapped(path: Path, start: int, end: int) -> Rows:
    """Copy the rows [start, end) of a file."""
    if not path.stat().st_size:
        return np.zeros(0, RECORD)
    # Mapped for this part alone: pages of a kept mapping would count as resident.
    records = np.memmap(path, RECORD, "r")
    low, high = np.searchsorted(records["row"], [start, end])
    return np.array(records[low:high])
