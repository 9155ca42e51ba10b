"""Draws user and item ids, Zipf-distributed, from a range, a parquet column or a store.

Ids are shuffled (seeded), then rank r is drawn with probability ∝ r⁻ˢ: popularity does not depend
on an id's number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
RANGE = re.compile(r"^(\d+)\.\.(\d+)$")
LARGEST = 50_000_000


class PopulationError(ValueError):
    """Ids that cannot be read or are too few; the message names the option and the remedy."""


@dataclass(frozen=True)
class Zipf:
    """Ids by falling popularity, with their cumulative probabilities."""

    ids: Ids  # (P,)
    cumulative: NDArray[np.float64]  # (P,)

    @classmethod
    def over(cls, ids: Ids, exponent: float, rng: np.random.Generator) -> Zipf:
        weights = np.arange(1, ids.size + 1, dtype=np.float64) ** -exponent
        return cls(rng.permutation(ids), np.cumsum(weights) / weights.sum())

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


def read_ids(spec: str, *, option: str, column: str) -> Ids:
    """Read (P,) ids of ``LOW..HIGH``, ``COUNT``, ``FILE.parquet[:COLUMN]`` or a store's URL."""
    if spec.isdigit():
        return _range(1, int(spec), option)
    if match := RANGE.match(spec):
        return _range(int(match[1]), int(match[2]), option)
    if "://" in spec:
        return _from_store(spec, option, column)
    return _from_parquet(spec, option, column)


def _range(low: int, high: int, option: str) -> Ids:
    if not low <= high < 2**63:
        raise PopulationError(f"{option}: {low}..{high} is not a range of ids")
    if high - low >= LARGEST:
        raise PopulationError(f"{option}: {low}..{high} holds more than {LARGEST:,} ids")
    return np.arange(low, high + 1, dtype=np.int64)


def _from_parquet(spec: str, option: str, column: str) -> Ids:
    from feature_store.parquet.columns import DataFileError, integers
    from feature_store.parquet.parts import ParquetParts

    name, _, chosen = spec.partition(".parquet:")
    path, column = Path(spec if not chosen else name + ".parquet"), chosen or column
    found = [np.zeros(0, np.int64)]
    try:
        parts = ParquetParts.read(path)
        parts.require(column)
        for _, file, arrays in parts.batches([column], 262_144):
            source = f"{file}: column {column}"
            read = integers(arrays[column], source, below=2**63, limit="beyond 63 bits")
            found.append(np.delete(read.values.astype(np.int64), list(read.faults)))
    except DataFileError as error:
        raise PopulationError(
            f"{option}: {error} (expected LOW..HIGH, COUNT, FILE.parquet[:COLUMN] or a store's URL)"
        ) from error
    every = np.unique(np.concatenate(found))
    ids: Ids = every[every > 0]  # 0 pads lists in the challenge's files
    if not ids.size:
        raise PopulationError(f"{option}: {path}, column {column!r} holds no ids")
    return ids


def _from_store(url: str, option: str, column: str) -> Ids:
    """Scan all items of a store, or all users with a history."""
    import asyncio

    import feature_store

    async def scan() -> list[Ids]:
        store = await feature_store.connect(url)
        try:
            if column == "item_id":
                return [batch.ids async for batch in store.scan_items()]
            return [np.array(list(users), np.int64) async for users in store.scan_histories()]
        finally:
            await store.close()

    batches = asyncio.run(scan())
    if not batches:
        raise PopulationError(
            f"{option}: {url} holds no {column.removesuffix('_id')}s "
            "(python -m feature_store load …)"
        )
    return np.sort(np.concatenate(batches))


def _first_seen(ids: Ids) -> Ids:
    _, first = np.unique(ids, return_index=True)
    return ids[np.sort(first)]
