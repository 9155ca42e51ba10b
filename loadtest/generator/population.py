"""Draws user and item ids, Zipf-distributed, from a range, a parquet column or a store.

Ids are shuffled (seeded), then rank r is drawn with probability ∝ r⁻ˢ: popularity does not depend
on an id's number. Text ids are drawn by their places in one Arrow buffer.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

    from feature_store import FeatureStore
    from feature_store.options import IdKind

Ids = NDArray[np.int64]
Population: TypeAlias = "Ids | pa.LargeStringArray"  # (P,) numbers or texts
RANGE = re.compile(r"^(\d+)\.\.(\d+)$")
LARGEST = 50_000_000
PATIENCE_MS = 5_000.0  # of a store's request: nothing waits for it


class PopulationError(ValueError):
    """Ids that cannot be read or are too few; the message names the option and the remedy."""


@dataclass(frozen=True)
class Zipf:
    """Ids by falling popularity, with their cumulative probabilities."""

    ids: Ids  # (P,) numbers, or places in ``texts``
    cumulative: NDArray[np.float64]  # (P,)
    texts: pa.LargeStringArray | None = None
    as_texts: bool = False  # name numbers by their decimal texts
    names: NDArray[np.object_] = field(default_factory=lambda: np.empty(0, object))
    """(P,) texts that were drawn, others empty: requests share them, so each is in memory once."""

    @classmethod
    def over(
        cls,
        ids: Population,
        exponent: float,
        rng: np.random.Generator,
        *,
        as_texts: bool = False,
    ) -> Zipf:
        texts = None if isinstance(ids, np.ndarray) else ids
        places = ids if isinstance(ids, np.ndarray) else np.arange(len(ids))
        weights = np.arange(1, places.size + 1, dtype=np.float64) ** -exponent
        cumulative = np.cumsum(weights) / weights.sum()
        names = np.full(places.size if texts is not None else 0, "", object)
        return cls(rng.permutation(places), cumulative, texts, as_texts, names)

    def named(self, drawn: Ids) -> list[int | str]:
        """Name drawn ids as a request does: by number or by text."""
        if self.texts is not None:
            new = drawn[self.names[drawn] == ""]
            if new.size:
                self.names[new] = self.texts.take(new).to_pylist()
            return list(self.names[drawn].tolist())
        return list(map(str, drawn.tolist())) if self.as_texts else list(drawn.tolist())

    def draw(self, rng: np.random.Generator, count: int) -> Ids:
        """Draw (count,) ids with replacement."""
        rank = np.searchsorted(self.cumulative, rng.random(count), side="right")
        return self.ids[np.minimum(rank, self.ids.size - 1)]

    def draw_distinct(self, rng: np.random.Generator, count: int) -> Ids:
        """Draw (count,) distinct ids, popular ones likelier, in no particular order."""
        if count > self.ids.size:
            raise PopulationError(
                f"candidates: a list of {count} needs as many distinct items; there are "
                f"{self.ids.size} (use more items or shorter lists)"
            )
        found: Ids = np.empty(0, np.int64)
        for _ in range(6):
            found = _first_seen(np.concatenate([found, self.draw(rng, 2 * count)]))
            if found.size >= count:
                return found[:count]
        rest = np.setdiff1d(self.ids, found)
        return np.concatenate([found, rng.choice(rest, count - found.size, replace=False)])


def read_ids(spec: str, *, option: str, column: str, ids: IdKind | None = None) -> Population:
    """Read (P,) ids of ``LOW..HIGH``, ``COUNT``, ``FILE.parquet[:COLUMN]`` or a store's URL.

    Those of a mapped store or a text column are texts, and with ``ids`` "mapped" of every column.
    """
    if spec.isdigit():
        return _range(1, int(spec), option)
    if match := RANGE.match(spec):
        return _range(int(match[1]), int(match[2]), option)
    if "://" in spec:
        return _from_store(spec, option, column)
    return _from_parquet(spec, option, column, ids)


def _range(low: int, high: int, option: str) -> Ids:
    if not low <= high < 2**63:
        raise PopulationError(f"{option}: {low}..{high} is not a range of ids")
    if high - low >= LARGEST:
        raise PopulationError(f"{option}: {low}..{high} holds more than {LARGEST:,} ids")
    return np.arange(low, high + 1, dtype=np.int64)


def _from_parquet(spec: str, option: str, column: str, ids: IdKind | None) -> Population:
    from feature_store.parquet.columns import DataFileError
    from feature_store.parquet.parts import ParquetParts

    name, _, chosen = spec.partition(".parquet:")
    path, column = Path(spec if not chosen else name + ".parquet"), chosen or column
    found: list[Population] = []
    try:
        parts = ParquetParts.read(path)
        parts.require(column)
        for _, file, arrays in parts.batches([column], 262_144):
            found.append(_of_column(arrays[column], f"{file}: column {column}", ids))
        every = _distinct(found)
    except DataFileError as error:
        raise PopulationError(
            f"{option}: {error} (expected LOW..HIGH, COUNT, FILE.parquet[:COLUMN] or a store's URL)"
        ) from error
    if not len(every):
        raise PopulationError(f"{option}: {path}, column {column!r} holds no ids")
    return every


def _of_column(array: pa.Array, source: str, ids: IdKind | None) -> Population:
    """Read a batch's ids without nulls, faults and the number 0, which pads the challenge's lists.

    DataFileError if the column holds no ids.
    """
    import pyarrow.compute as pc

    from feature_store.parquet.arrays import is_number
    from feature_store.parquet.columns import DataFileError, integers
    from feature_store.parquet.texts import texts
    from feature_store.text_ids import LONGEST

    if ids != "mapped" and is_number(array.type):
        read = integers(array, source, below=2**63, limit="beyond 63 bits")
        numbers = np.delete(read.values.astype(np.int64), list(read.faults))
        return numbers[numbers > 0]
    found = texts(array)
    if found is None:
        raise DataFileError(f"{source}: holds {array.type}, not ids")
    named = pc.unique(found[0].drop_null())
    length = pc.utf8_length(named)
    named = named.filter(pc.and_(pc.greater(length, 0), pc.less_equal(length, LONGEST)))
    return named.filter(pc.not_equal(named, "0")) if is_number(array.type) else named


def _from_store(url: str, option: str, column: str) -> Population:
    """Scan all items of a store, or all users with a history; their texts if it is mapped."""
    import asyncio

    import feature_store
    from feature_store.connect import shown
    from feature_store.errors import StoreError
    from feature_store.options import StoreOptions

    async def scan() -> list[Population]:
        store = await feature_store.connect(url, options=StoreOptions(budget_ms=PATIENCE_MS))
        try:
            return [batch async for batch in _scanned(store, column)]
        finally:
            await store.close()

    try:
        found = _distinct(asyncio.run(scan()))
    except StoreError as error:
        raise PopulationError(f"{option}: {error}") from error
    if not len(found):
        raise PopulationError(
            f"{option}: {shown(url)} holds no {column.removesuffix('_id')}s "
            "(python -m feature_store load …)"
        )
    return found


async def _scanned(store: FeatureStore, column: str) -> AsyncIterator[Population]:
    """Yield ids in batches; in a mapped store the texts of those that have one."""
    import pyarrow as pa

    def arrow(texts: list[str | None]) -> pa.LargeStringArray:
        return pa.array(texts, pa.large_string()).drop_null()

    if column == "item_id":
        async for batch in store.scan_items():
            ids = batch.ids
            yield ids if store.text_ids is None else arrow(await store.item_texts(ids))
    else:
        async for histories in store.scan_histories():
            users = np.array(list(histories), np.int64)
            yield users if store.text_ids is None else arrow(await store.user_texts(users.tolist()))


def _distinct(batches: list[Population]) -> Population:
    """Join the batches, sorted: the order of a file or scan does not matter."""
    batches = [batch for batch in batches if len(batch)]
    if all(isinstance(batch, np.ndarray) for batch in batches):
        return np.unique(np.concatenate([np.zeros(0, np.int64), *batches]))
    import pyarrow as pa
    import pyarrow.compute as pc

    chunks = [
        pa.array(batch).cast(pa.large_string()) if isinstance(batch, np.ndarray) else batch
        for batch in batches  # numbers in some parts of a folder: their decimal texts
    ]
    texts = pc.unique(pa.chunked_array(chunks))
    return texts.take(pc.sort_indices(texts))


def _first_seen(ids: Ids) -> Ids:
    _, first = np.unique(ids, return_index=True)
    return ids[np.sort(first)]
