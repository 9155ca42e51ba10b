"""Why a candidate scored as it did: the history items that its pooled interest came from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import Ids
from model_export.explain import Influence

Floats = NDArray[np.float32]
Positions = NDArray[np.int64]


class Explanations:
    """For some candidates of a request; filled in chunk by chunk.

    E candidates to explain, G distinct history items, T ≤ G of them told of.
    """

    def __init__(self, candidates: Positions, past: Ids, top: int) -> None:
        """``candidates`` (E,) are positions in the request, ``past`` (L,) the history scored."""
        self.candidates = candidates
        self._items, self.same = np.unique(past, return_inverse=True)  # (G,), (L,) into them
        self.top = min(top, len(self._items))
        self._position = np.zeros((len(candidates), self.top), np.int64)
        self._share = np.zeros((len(candidates), self.top), np.float32)

    def add(self, start: int, end: int, found: Influence) -> None:
        self._position[start:end], self._share[start:end] = found.position, found.share

    def as_json(self, chosen: Positions) -> list[dict[str, Any] | None]:
        """One for each of the chosen candidates, None for those without a score."""
        place = {int(candidate): row for row, candidate in enumerate(self.candidates)}
        return [self._row(place.get(int(candidate))) for candidate in chosen]

    def _row(self, row: int | None) -> dict[str, Any] | None:
        if row is None:
            return None
        attended = self._share[row] > 0
        return {
            "item_ids": self._items[self._position[row, attended]],
            "shares": self._share[row, attended],
        }
