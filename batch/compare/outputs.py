"""Reads two outputs of one input side by side, with labels and segments of the input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.errors import BatchError
from batch.inputs.source import ELEMENTS, LISTS, ForwardReader, digest_of, open_input
from batch.inputs.stamps import refuse_changes, stamps_now, stamps_of
from batch.output.folders import folder_of
from batch.output.manifest import MANIFEST
from feature_store.contract import Ids
from feature_store.parquet.arrays import flattened, is_list, plain, whole_numbers
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.parts import ParquetParts
from model_export.bundle.vectors import Floats

SHARED = ("layout", "user", "item")  # say which candidates row i of either output has
PASSED = "kept"  # decides no score
Named = str | list[str] | None  # columns of the input
Fault = Callable[[int, str], DataFileError]  # of a row of the batch, and the reason


@dataclass(frozen=True, slots=True)
class Side:
    """One output, complete."""

    place: str
    manifest: dict[str, Any]

    @classmethod
    def open(cls, place: str) -> Side:
        """BatchError unless it is complete, and has every row."""
        data = folder_of(place).read(MANIFEST)
        if data is None:
            raise BatchError(f"{place}: has no {MANIFEST}: run `score` to its end first")
        manifest = _manifest(data, place)
        if manifest["recipe"]["top_k"] is not None:
            raise BatchError(f"{place}: has each user's best alone (--top-k): score without it")
        return cls(place, manifest)

    @property
    def recipe(self) -> dict[str, Any]:
        found: dict[str, Any] = self.manifest["recipe"]
        return found

    def scores(self) -> Iterator[tuple[Ids, Floats]]:
        """Yield of each part how many scores its rows have (N,), and the scores (E,): NaN, none."""
        folder, name = folder_of(self.place), self.score_column
        for part in self.manifest["parts"]:
            data = folder.read(part["name"])
            if data is None or sha256(data).hexdigest() != part["sha256"]:
                raise BatchError(
                    f"{self.place}: {part['name']} is missing or damaged; run `score` again"
                )
            table = pq.read_table(pa.BufferReader(data), columns=[name]).combine_chunks()
            scores = _whole(table, name)
            counts = np.ones(len(scores), np.int64)
            if is_list(scores.type):
                scores, counts = flattened(scores)
            yield counts, pc.fill_null(scores, np.float32(np.nan)).to_numpy(zero_copy_only=False)

    @property
    def score_column(self) -> str:
        return "score" if self.recipe["columns"]["layout"] == "rows" else "scores"


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of what both outputs have, E candidates."""

    a: Floats  # (E,)
    b: Floats  # (E,)
    group: Ids  # (E,) number of the list, or of the user
    labels: Ids | None  # (E,) 0, 1; -1: none
    segments: dict[str, list[str]]  # column -> (E,)


def pieces(
    a: Side, b: Side, source: str, label: str | None, segments: Sequence[str]
) -> Iterator[Piece]:
    """Yield both outputs of ``source``, in its order. BatchError, DataFileError."""
    files = stamps_of(source)
    parts = open_input(source, files)
    _check(a, b, parts, source)
    names = [name for name in (label, *segments) if name is not None]
    for name in names:
        parts.require(name)
    columns = a.recipe["columns"]
    lists = columns["layout"] == "lists"
    wanted = [columns["item"], *names] if lists else [columns["user"], *names]
    reader = ForwardReader(parts, list(dict.fromkeys(wanted)), LISTS if lists else ELEMENTS)
    left, right = _Scores(a), _Scores(b)

    def fault(first: int, row: int, reason: str) -> DataFileError:
        return DataFileError(str(parts.rejected(first + row, label or "", reason)))

    for first, file, arrays in reader.read(0, parts.rows):
        count = len(arrays[wanted[0]])
        lengths = np.ones(count, np.int64)
        if lists:
            lengths = flattened(arrays[columns["item"]])[1]
            group = np.repeat(np.arange(first, first + count), lengths)
        else:
            group = _numbered(arrays[columns["user"]])
        labels = None
        if label is not None:
            place = f"{file}: column {label}"
            labels = _labels(arrays[label], place, lengths, partial(fault, first))
        found = {name: _segment(arrays[name], lengths) for name in segments}
        yield Piece(left.take(lengths), right.take(lengths), group, labels, found)
    refuse_changes(files, stamps_now(source, list(files)))


def _manifest(data: bytes, place: str) -> dict[str, Any]:
    """Read a manifest. BatchError if it was damaged."""
    with suppress(orjson.JSONDecodeError, KeyError, TypeError):
        found: dict[str, Any] = orjson.loads(data)
        named = [[part["name"], part["sha256"]] for part in found["parts"]]
        if found["digest"] == sha256(b"".join(map(orjson.dumps, named))).hexdigest():
            return found
    raise BatchError(f"{place}: {MANIFEST} is damaged; run `score` again")


class _Scores:
    """Scores of a side, taken so many rows at a time."""

    def __init__(self, side: Side) -> None:
        self._parts = side.scores()
        self._left = np.zeros(0, np.int64), np.zeros(0, np.float32)

    def take(self, lengths: Ids) -> Floats:
        """Return scores (E,) of the next rows, of so many candidates (N,): NaN of a list that has
        none, which was too long for the run."""
        parts, rows = [self._left], len(lengths)
        while sum(len(counts) for counts, _ in parts) < rows:
            parts.append(next(self._parts))
        counts, scores = (np.concatenate(each) for each in zip(*parts, strict=True))
        taken = int(counts[:rows].sum())
        self._left = counts[rows:], scores[taken:]
        found = np.full(int(lengths.sum()), np.nan, np.float32)
        found[np.repeat(counts[:rows] == lengths, lengths)] = scores[:taken]
        return found


def _check(a: Side, b: Side, parts: ParquetParts, source: str) -> None:
    digest = digest_of(parts, source)
    for side in (a, b):
        if side.recipe["input"] != digest:
            raise BatchError(f"{side.place}: holds scores of another input than {source}")
    for name, (one, other) in _differing(a, b).items():
        if name in SHARED:
            raise BatchError(
                f"{a.place} and {b.place} were scored with other columns: "
                f"{name} {named(one)} against {named(other)}"
            )


def _differing(a: Side, b: Side) -> dict[str, tuple[Named, Named]]:
    """Return what the columns of the two mean differently."""
    ours, theirs = (side.recipe["columns"] for side in (a, b))
    pairs = {name: (ours.get(name), theirs.get(name)) for name in ours | theirs}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def other_columns(a: Side, b: Side) -> dict[str, dict[str, Named]]:
    """Return which columns of the input one of the two was scored by and the other was not."""
    pairs = _differing(a, b)
    return {name: {"a": one, "b": two} for name, (one, two) in pairs.items() if name != PASSED}


def named(columns: Named) -> str:
    """Write columns in a sentence."""
    return ", ".join([columns] if isinstance(columns, str) else columns or ()) or "none"


def _whole(table: pa.Table, column: str) -> pa.Array:
    chunked = table.column(column)
    return chunked.chunk(0) if chunked.num_chunks else pa.array([], chunked.type)


def _numbered(users: pa.Array) -> Ids:
    """Users as integers; of texts by a hash."""
    read = whole_numbers(users)
    if read is not None:
        return read[0].astype(np.int64)
    found: Ids = np.array([hash(user) for user in users.to_pylist()], np.int64)
    return found


def _labels(array: pa.Array, source: str, lengths: Ids, fault: Fault) -> Ids:
    """Read a label per candidate (E,); -1: none."""
    rows = np.repeat(np.arange(len(lengths)), lengths)
    if is_list(array.type):
        array, counts = flattened(array)
        for row in np.flatnonzero(counts != lengths)[:1].tolist():
            raise fault(row, f"{counts[row]} labels for {lengths[row]} candidates")
    elif (lengths != 1).any():
        raise DataFileError(f"{source}: holds {array.type}, not a list of labels per row")
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    read = whole_numbers(array)
    if read is None:
        raise DataFileError(f"{source}: holds {array.type}, not labels 0 and 1")
    missing = array.is_null().to_numpy(zero_copy_only=False)
    for at, reason in sorted(read[1].items()):
        if not missing[at]:
            raise fault(int(rows[at]), reason)
    labels: Ids = read[0].astype(np.int64)
    for at in np.flatnonzero((labels < 0) | (labels > 1))[:1].tolist():
        raise fault(int(rows[at]), f"{read[0][at]} is neither 0 nor 1")
    labels[missing] = -1
    return labels


def _segment(array: pa.Array, lengths: Ids) -> list[str]:
    texts = [str(value) for value in plain(array).to_pylist()]
    return [text for text, count in zip(texts, lengths.tolist(), strict=True) for _ in range(count)]


__all__ = ["Path", "Piece", "Side", "named", "other_columns", "pieces"]
