"""Makes the bytes of a part: columns of the input, scores, statuses; with a note of its own.

The same rows of the same recipe have the same bytes, in any process. A part has the digest of all
its other bytes, so that one that was damaged is found out.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batch.scoring.scores import ITEM_STATUS, USER_STATUS, Codes
from model_export.bundle.vectors import Floats, Positions

NOTE, DIGEST = b"qin.batch", b"qin.batch.sha256"  # keys of the file's metadata
UNSET = b"0" * 64
# The digest's place: in Thrift's compact protocol a text of 64 bytes follows. The note, which is
# JSON, has no such bytes, and what else may have them comes before the file's metadata.
PLACE = DIGEST + b"\x18\x40"


@dataclass(frozen=True, slots=True)
class PartNote:
    """What a part says of itself."""

    recipe: str  # digest
    start: int  # input rows
    end: int
    counts: Mapping[str, int]
    faults: Sequence[tuple[int, int, str]] = field(default_factory=list)  # see ``as_runs``

    def encoded(self) -> bytes:
        return orjson.dumps(self)

    @classmethod
    def of(cls, data: bytes) -> PartNote:
        """Read the note of a part's bytes. ValueError unless they are as they were written."""
        at = data.rfind(PLACE) + len(PLACE)
        if data[at : at + len(UNSET)] != _digest_around(data, at):
            raise ValueError("no part of a batch run, or damaged")
        return cls(**orjson.loads(pq.read_metadata(pa.BufferReader(data)).metadata[NOTE]))


def as_runs(faults: Sequence[tuple[int, str]]) -> list[tuple[int, int, str]]:
    """Return first row, count and reason of neighbours that have the same; ``faults`` ascend."""
    found: list[tuple[int, int, str]] = []
    for row, reason in faults:
        start, count, before = found[-1] if found else (0, 0, "")
        if reason == before and row == start + count:
            found[-1] = start, count + 1, reason
        else:
            found.append((row, 1, reason))
    return found


def encoded(columns: Mapping[str, pa.Array], note: PartNote) -> bytes:
    """Return the parquet file of these columns."""
    table, sink = pa.table(dict(columns)), io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        writer.write_table(table, row_group_size=max(1, table.num_rows))
        writer.add_key_value_metadata({NOTE: note.encoded(), DIGEST: UNSET})
    data = sink.getvalue()
    at = data.rindex(PLACE) + len(PLACE)
    return b"".join((data[:at], _digest_around(data, at), data[at + len(UNSET) :]))


def _digest_around(data: bytes, at: int) -> bytes:
    """Digest everything but the digest itself, which is at ``at``."""
    view = memoryview(data)
    digest = sha256(view[:at])
    digest.update(view[at + len(UNSET) :])
    return digest.hexdigest().encode()


def score_array(scores: Floats) -> pa.Array:
    """(N,) scores; what has none is null."""
    return pa.array(scores, pa.float32(), mask=np.isnan(scores))


def code_array(codes: Codes, names: Sequence[str]) -> pa.Array:
    """(N,) codes by name."""
    dictionary = pa.array(list(names), pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int8)), dictionary)


def version_array(version: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(count, np.int8)), pa.array([version], pa.string())
    )


def list_array(values: pa.Array, starts: Positions) -> pa.Array:
    """Lists of consecutive values, between ``starts`` (N + 1,)."""
    return pa.LargeListArray.from_arrays(pa.array(starts, pa.int64()), values)


def counts_of(items: Codes, users: Codes) -> dict[str, int]:
    """Count candidates and users by status."""
    found: Counter[str] = Counter()
    for codes, names, what in ((items, ITEM_STATUS, "items"), (users, USER_STATUS, "users")):
        for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
            found[f"{what}_{names[code]}"] = int(count)
    return dict(sorted(found.items()))


def concatenated(arrays: Sequence[pa.Array]) -> Any:
    """One array of several of one type."""
    return pa.concat_arrays(list(arrays)) if len(arrays) > 1 else arrays[0]
