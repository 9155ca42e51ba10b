"""Explains candidates by the history items that their pooled interest came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from feature_store.contract import Ids
from model_export.bundle.explain import Influence
from model_export.bundle.vectors import Positions

ROW = b'{"item_ids":[%b],"shares":[%b]}'
NOTHING = ROW % (b"", b"")


class Explanations:
    """For some candidates of a request; filled in chunk by chunk.

    E candidates to explain, G distinct history items, T ≤ G of them listed.
    """

    def __init__(
        self, candidates: Positions, past: Ids, top: int, *, ids_as_strings: bool = False
    ) -> None:
        """``candidates`` (E,) are positions in the request, ``past`` (L,) the history scored."""
        self.candidates = candidates
        self._items, self.same = np.unique(past, return_inverse=True)  # (G,), (L,) into them
        self.top = min(top, len(self._items))
        self._ids_as_strings = ids_as_strings
        self._rows = [NOTHING] * len(candidates)  # JSON

    def add(self, start: int, end: int, found: Influence) -> None:
        """Add a chunk. Writes its JSON, too, because it is called on an engine thread."""
        counts = np.count_nonzero(found.share > 0, axis=1)  # the first of each row
        for top in np.unique(counts[counts > 0]).tolist():
            rows = np.flatnonzero(counts == top)
            ids = _written(self._items[found.position[rows, :top]])
            if self._ids_as_strings:
                ids = [b'"%b"' % row.replace(b",", b'","') for row in ids]
            shares = _written(found.share[rows, :top])
            for row, named, weights in zip(rows.tolist(), ids, shares, strict=True):
                self._rows[start + row] = ROW % (named, weights)

    def as_json(self, chosen: Positions) -> list[orjson.Fragment | None]:
        """One for each of the chosen candidates, None for those without a score."""
        size = max(self.candidates.max(initial=-1), chosen.max(initial=-1)) + 1
        row = np.full(size, -1)
        row[self.candidates] = np.arange(len(self.candidates))
        rows = self._rows
        return [orjson.Fragment(rows[r]) if r >= 0 else None for r in row[chosen].tolist()]


def _written(rows: NDArray[Any]) -> list[bytes]:
    """(N, T), T > 0: the numbers of each row as JSON, without its brackets."""
    return orjson.dumps(np.ascontiguousarray(rows), option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(
        b"],["
    )
