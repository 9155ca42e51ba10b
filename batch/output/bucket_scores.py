"""Scores of a bucket's rows, by number of the row: between scoring and the parts."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from batch.inputs.requests import Requests
from batch.output.folder import Folder
from batch.scoring.scores import Scores
from model_export.bundle.top_k import best
from model_export.bundle.vectors import Positions

RECORD = np.dtype(
    [("row", "i8"), ("score", "f4"), ("item", "u1"), ("user", "u1"), ("rank", "i4")]
)  # rank: 1 is the best; 0: not asked for, or not among the k


def name_of(bucket: int) -> str:
    return f"scores-{bucket:05d}.npy"


def faults_of(bucket: int) -> str:
    return f"faults-{bucket:05d}.json"


def write_scores(
    folder: Folder,
    bucket: int,
    requests: Requests,
    rows: Positions,
    scores: Scores,
    top_k: int | None,
) -> None:
    """Write the scores of a bucket, and which of its rows have none and why."""
    records = np.zeros(len(rows), RECORD)
    records["row"], records["score"], records["item"] = rows, scores.scores, scores.items
    records["user"] = np.repeat(scores.users, np.diff(requests.starts))
    if top_k is not None:
        for g in range(len(requests)):
            start, end = int(requests.starts[g]), int(requests.starts[g + 1])
            chosen = best(scores.scores[start:end], top_k)
            records["rank"][start + chosen] = np.arange(1, len(chosen) + 1)
    faults = [
        (row, reason)
        for g, reason in scores.faults.items()
        for row in rows[requests.starts[g] : requests.starts[g + 1]].tolist()
    ]
    folder.put(faults_of(bucket), orjson.dumps(sorted(faults)))
    sink = io.BytesIO()
    np.save(sink, records[np.argsort(records["row"], kind="stable")])
    folder.put(name_of(bucket), sink.getvalue())


class BucketScores:
    """The scores of all buckets."""

    def __init__(self, folder: Path, buckets: int) -> None:
        self._paths = [folder / name_of(bucket) for bucket in range(buckets)]
        self._faults: dict[int, str] = {}
        for bucket in range(buckets):
            self._faults.update(orjson.loads((folder / faults_of(bucket)).read_bytes()))

    def faults(self, start: int, end: int) -> list[tuple[int, str]]:
        """Rows [start, end) that could not be scored."""
        return sorted((row, why) for row, why in self._faults.items() if start <= row < end)

    def rows(self, start: int, end: int) -> list[NDArray[np.void]]:
        """Records of the rows [start, end), in parts."""
        found = []
        for path in self._paths:
            # Mapped for this part alone: pages of a kept mapping would count as resident.
            records = np.load(path, mmap_mode="r")
            low, high = np.searchsorted(records["row"], [start, end])
            if low < high:
                found.append(np.array(records[low:high]))
        return found
