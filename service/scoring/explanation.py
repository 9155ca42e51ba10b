"""Explains candidates by the history items that their pooled interest came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from feature_store.contract import Ids
from model_export.bundle.explain import Influence
from model_export.bundle.vectors import Positions
from service.scoring.id_texts import IdTexts

ROW = b'{"item_ids":[%b],"shares":[%b]}'
NOTHING = ROW % (b"", b"")


class Explanations:
    """For some candidates of a request; filled in chunk by chunk.

    E candidates to explain, G distinct history items, T ≤ G of them listed.
    """

    def __init__(
        self, candidates: Positions, past: Ids, top: int, texts: IdTexts | None = None
    ) -> None:
        """``candidates`` (E,) are positions in the request, ``past`` (L,) the history scored.
        ``texts``: of its items, if they are given as strings; items without one are left out."""
        self.candidates = candidates
        self._items, self.same = np.unique(past, return_inverse=True)  # (G,), (L,) into them
        self.top = min(top, len(self._items))
        self._texts: NDArray[np.object_] | None = None  # (G,) JSON; empty: there is none
        if texts is not None:
            written = [
                b"" if t is None else orjson.dumps(t) for t in texts.of(self._items.tolist())
            ]
            self._texts = np.array(written, np.object_)
        self._rows = [NOTHING] * len(candidates)  # JSON

    def add(self, start: int, end: int, found: Influence) -> None:
        """Add a chunk. Writes its JSON, too, because it is called on an engine thread."""
        counts = np.count_nonzero(found.share > 0, axis=1)  # the first of each row
        for top in np.unique(counts[counts > 0]).tolist():
            rows = np.flatnonzero(counts == top)
            items, shares = found.position[rows, :top], _written(found.share[rows, :top])
            if self._texts is None:
                ids = _written(self._items[items])
            else:
                texts = self._texts[items].tolist()
                ids = [b",".join(row) for row in texts]
                if b"" in self._texts:
                    ids, shares = _named(texts, shares)
            for row, named, weights in zip(rows.tolist(), ids, shares, strict=True):
                self._rows[start + row] = ROW % (named, weights)

    def as_json(self, chosen: Positions) -> list[orjson.Fragment | None]:
        """One for each of the chosen candidates, None for those without a score."""
        size = max(self.candidates.max(initial=-1), chosen.max(initial=-1)) + 1
        row = np.full(size, -1)
        row[self.candidates] = np.arange(len(self.candidates))
        rows = self._rows
        return [orjson.Fragment(rows[r]) if r >= 0 else None for r in row[chosen].tolist()]


def _named(texts: list[list[bytes]], shares: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Leave out the items without a text, and their shares."""
    pairs = [
        [(t, share) for t, share in zip(row, written.split(b","), strict=True) if t]
        for row, written in zip(texts, shares, strict=True)
    ]
    ids, weights = ([b",".join(pair[at] for pair in row) for row in pairs] for at in (0, 1))
    return ids, weights


def _written(rows: NDArray[Any]) -> list[bytes]:
    """(N, T), T > 0: the numbers of each row as JSON, without its brackets."""
    return orjson.dumps(np.ascontiguousarray(rows), option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(
        b"],["
    )
