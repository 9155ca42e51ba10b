"""Random items and requests for the benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import ItemRows
from feature_store.schema import FeatureSchema

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


def random_items(schema: FeatureSchema, random: np.random.Generator) -> ItemRows:
    """(ITEMS,) records with every list slot used and random context levels."""
    rows = np.zeros(ITEMS, schema.item_dtype)
    for feature in schema.stored_item:
        shape = rows[feature.name].shape
        if feature.kind == "dense":
            rows[feature.name] = random.normal(0, 1, shape)
        else:
            rows[feature.name] = random.integers(1, feature.vocabulary, shape)
    return rows
