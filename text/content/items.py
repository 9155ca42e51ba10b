"""Reads items with texts and given vectors from parquet, a batch at a time.

A row is an item. Its texts are in columns ``text`` and ``text_LANG`` (or those named), one a
language; null, empty and blank ones are missing. Given vectors are lists of numbers; null is
missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.parquet.columns import DataFileError, dense
from feature_store.parquet.parts import ParquetParts
from feature_store.parquet.text_columns import strings
from text.runtime.content import TEXT
from text.runtime.encoder import SPECIAL, TextEncoder

DIGEST_BYTES = 16
Vectors = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class ItemBatch:
    """Consecutive rows, N of them."""

    start: int
    rows: int
    texts: dict[str, list[str | None]]  # column -> (N,), None where it is missing
    given: dict[str, tuple[NDArray[np.float32], Mask]]  # column -> (N, X), rows that have it
    carried: dict[str, pa.Array]  # other columns, (N,)

    def __len__(self) -> int:
        return self.rows

    @property
    def have_any(self) -> Mask:
        """(N,) rows with a text or a given vector."""
        texts = [np.array([text is not None for text in own]) for own in self.texts.values()]
        masks = [*texts, *(mask for _, mask in self.given.values())]
        any_of: Mask = np.logical_or.reduce(masks)
        return any_of

    def take(self, rows: Sequence[int]) -> ItemBatch:
        """Return these rows, without the carried columns."""
        texts = {name: [own[row] for row in rows] for name, own in self.texts.items()}
        given = {name: (own[rows], has[rows]) for name, (own, has) in self.given.items()}
        return ItemBatch(self.start, len(rows), texts, given, {})

    def digests(self, of: str) -> list[bytes]:
        """Digest what each row's content is made of, ``of`` an encoder: columns, texts, vectors."""
        found = []
        for row in range(len(self)):
            digest = hashlib.sha256(of.encode())
            for name, column in self.texts.items():
                if (text := column[row]) is not None:
                    content = text.encode()
                    digest.update(f"\n{name} {len(content)} ".encode() + content)
            for name, (vectors, has) in self.given.items():
                if has[row]:
                    digest.update(f"\n{name} ".encode() + vectors[row].tobytes())
            found.append(digest.digest()[:DIGEST_BYTES])
        return found


class ItemTexts:
    """The columns of texts and of given vectors of a file, or of a folder of parts."""

    def __init__(self, path: Path, texts: Sequence[str], given: Sequence[str]) -> None:
        """Open a file; without names its columns ``text`` and ``text_…`` are the texts.

        Raises DataFileError.
        """
        self.path, self.parts = path, ParquetParts.read(path)
        found = [name for name in self.parts.columns if name == TEXT or name.startswith("text_")]
        self.texts = sorted(texts or found)  # sums of vectors are in this order
        self.given = list(given)
        for name in (*self.texts, *self.given):
            self.parts.require(name)
        if not self.texts:
            raise DataFileError(
                f"{path}: no column text or text_LANG; name the columns of texts with --text "
                f"(it has: {', '.join(self.parts.columns)})"
            )
        self._sizes: dict[str, int] = {}

    @property
    def rows(self) -> int:
        return self.parts.rows

    def expect(self, sizes: Mapping[str, int]) -> None:
        """Require so many numbers of given vectors."""
        self._sizes |= {name: size for name, size in sizes.items() if name in self.given}

    def size(self, column: str) -> int:
        """Return the numbers of a given vector: those of the first row that has it."""
        if column not in self._sizes:
            for _, path, arrays in self.parts.batches([column], 4096):
                present = arrays[column].drop_null()
                if len(present):
                    value = present[0].as_py()
                    if not isinstance(value, list) or not value:
                        raise DataFileError(f"{path}: column {column}: no lists of numbers")
                    self._sizes[column] = len(value)
                    break
            else:
                raise DataFileError(f"{self.parts}: column {column}: no vector at all")
        return self._sizes[column]

    def batches(
        self, rows: int, start: int = 0, carried: Sequence[str] = ()
    ) -> Iterator[ItemBatch]:
        """Yield the items from row ``start`` on, ``rows`` at a time, across the files'
        row groups. Raises DataFileError, which names the row."""
        columns = list(dict.fromkeys([*self.texts, *self.given, *carried]))
        for first, table in self._tables(columns, rows, start):
            arrays = {name: table[name].combine_chunks() for name in columns}
            texts = {
                name: strings(arrays[name], f"{self.parts}: column {name}", first)
                for name in self.texts
            }
            given = {name: self._vectors(name, arrays[name], first) for name in self.given}
            others = {name: arrays[name] for name in carried}
            yield ItemBatch(first, len(table), texts, given, others)

    def _tables(
        self, columns: Sequence[str], rows: int, start: int
    ) -> Iterator[tuple[int, pa.Table]]:
        left = None
        for _, path, arrays in self.parts.batches(columns, rows, start):
            read = pa.table(arrays)
            try:
                both = [left, read] if left else [read]
                left = pa.concat_tables(both, promote_options="permissive")
            except pa.ArrowException as error:
                raise DataFileError(
                    f"{path}: columns of other types than before: {error}"
                ) from error
            while len(left) >= rows:
                yield start, left.slice(0, rows)
                left, start = left.slice(rows), start + rows
        if left:
            yield start, left

    def _vectors(
        self, column: str, array: pa.Array, first: int
    ) -> tuple[NDArray[np.float32], Mask]:
        dtype = np.dtype(np.float32)
        found = dense(array, f"{self.parts}: column {column}", size=self.size(column), dtype=dtype)
        has = array.is_valid().to_numpy(zero_copy_only=False)
        for row, fault in sorted(found.faults.items()):
            if has[row]:
                raise DataFileError(str(self.parts.rejected(first + row, column, fault)))
        return found.values.astype(np.float32, copy=False), has


@dataclass(frozen=True, slots=True, eq=False)
class EncodedItems:
    """Vectors of a batch's items, by modality."""

    vectors: dict[str, Vectors]  # (N, X); rows without the modality are 0
    has: dict[str, Mask]
    content: Vectors | None  # (N, C), of the texts alone, where the encoder has a map
    encoded: int  # distinct texts
    truncated: int  # of these

    def __len__(self) -> int:
        return len(self.has[TEXT])


def encode(encoder: TextEncoder, batch: ItemBatch) -> EncodedItems:
    """Encode a batch; an item's text vector is the mean of its texts' unit vectors.

    A text without tokens is missing. A text is cut at the encoder's longest length.
    """
    places = [
        (row, text)
        for column in batch.texts.values()
        for row, text in enumerate(column)
        if text is not None
    ]
    distinct = list(dict.fromkeys(text for _, text in places))
    have_tokens = encoder.tokenizer.encode(distinct, SPECIAL + 1).lengths > SPECIAL
    known = [text for text, has in zip(distinct, have_tokens.tolist(), strict=True) if has]
    encoded = encoder.encode(known, truncate=True)
    index = {text: i for i, text in enumerate(known)}
    places = [(row, text) for row, text in places if text in index]
    rows = np.array([row for row, _ in places], np.int64)
    texts = np.array([index[text] for _, text in places], np.int64)
    counts = np.bincount(rows, minlength=len(batch))

    def mean(values: NDArray[np.float32]) -> Vectors:
        total = np.zeros((len(batch), values.shape[1]))
        np.add.at(total, rows, values[texts].astype(np.float64))
        return total / np.maximum(counts, 1)[:, None]

    given = {name: values.astype(np.float64) for name, (values, _) in batch.given.items()}
    content = None if encoded.content is None else mean(encoded.content)
    return EncodedItems(
        {TEXT: mean(encoded.vectors), **given},
        {TEXT: counts > 0, **{name: has for name, (_, has) in batch.given.items()}},
        content,
        len(known),
        int(encoded.truncated.sum()),
    )
