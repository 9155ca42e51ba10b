"""Random items and requests for the benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import ItemRows
from feature_store.schema import FeatureSchema, Numeric, Stored

ITEMS = 4096  # distinct items that requests draw from
CHUNK = 512  # candidates per call, as in the service


@dataclass(frozen=True, slots=True)
class Request:
    """Positions among the bench's items."""

    candidates: NDArray[np.int32]  # (C,)
    history: NDArray[np.int32]  # (L,)

    @classmethod
    def random(
        cls, candidates: int, history: int, random: np.random.Generator, items: int = ITEMS
    ) -> Request:
        """Draw with replacement, for the history and the candidates."""
        return cls(
            random.integers(0, items, candidates, np.int32),
            random.integers(0, items, history, np.int32),
        )

    def parts(self, size: int) -> Iterator[Request]:
        """Split the candidates into parts of at most ``size``, with the same history."""
        for start in range(0, len(self.candidates), size):
            yield Request(self.candidates[start : start + size], self.history)


def known_user(schema: FeatureSchema) -> tuple[NDArray[np.void] | None, dict[str, float]]:
    """The record of a user and request features, all of them known; the same every time."""
    random = np.random.default_rng(0)
    record = random_records(schema.user, schema.user_dtype, 1, random) if schema.user else None
    request = {
        f.name: random.normal() if isinstance(f, Numeric) else int(random.integers(1, f.vocabulary))
        for f in schema.request
    }
    return record, request


def random_items(schema: FeatureSchema, random: np.random.Generator) -> ItemRows:
    """(ITEMS,) records with every list slot used and random context levels."""
    return random_records(schema.stored_item, schema.item_dtype, ITEMS, random)


def random_records(
    features: tuple[Stored, ...], dtype: np.dtype[np.void], count: int, random: np.random.Generator
) -> NDArray[np.void]:
    rows = np.zeros(count, dtype)
    for feature in features:
        shape = rows[feature.name].shape
        if feature.kind == "dense":
            rows[feature.name] = random.normal(0, 1, shape)
        else:
            rows[feature.name] = random.integers(1, feature.vocabulary, shape)
    return rows
