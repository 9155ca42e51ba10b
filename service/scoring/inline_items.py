"""Candidates that a request gives whole, because they are in no store: I of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feature_store.contents import Contents
from feature_store.contract import Ids, ItemRows
from model_export.bundle.vectors import Positions
from service.scoring.id_texts import IdTexts

FIRST = -2  # ids of stored items are never negative; -1 is the item table's "empty"


@dataclass(frozen=True, slots=True, eq=False)
class InlineItems:
    """Their records. Nothing of them is kept after the answer."""

    places: Positions  # (I,) among the request's candidates, ascending
    rows: ItemRows  # (I,) as the store would have them
    contents: Contents | None = None  # (I,) origins of their vectors; None: all were given

    def __len__(self) -> int:
        return len(self.places)


def numbered(candidates: Ids, places: Positions) -> Ids:
    """Give the candidates at ``places`` ids that no stored item has."""
    ids = candidates.copy()
    ids[places] = FIRST - np.arange(len(places))
    return ids


class NamedTexts:
    """Ids of an answer with inline candidates: their names, beside the other ids as they are."""

    def __init__(
        self, places: Positions, names: Sequence[str], candidates: int, others: IdTexts | None
    ) -> None:
        """``others``: the texts of stored items, None where ids are numbers."""
        self._names = {FIRST - number: name for number, name in enumerate(names)}
        self._places = dict(zip(places.tolist(), names, strict=True))
        self._count, self._others = candidates, others

    async def read(self, history: Ids) -> None:
        """Read the texts of stored history items."""
        if self._others is not None:
            await self._others.read(history)

    def of(self, ids: Sequence[int]) -> list[int | str | None]:
        """Return the name, the text or the number of each id."""
        stored = list(ids) if self._others is None else self._others.of(ids)
        return [self._names.get(i, other) for i, other in zip(ids, stored, strict=True)]

    def candidates(self, ids: Ids, chosen: Positions | None) -> list[int | str]:
        """Return names, texts or numbers of the candidates, or of those at the positions."""
        if self._others is None:
            stored: list[int | str] = list((ids if chosen is None else ids[chosen]).tolist())
        else:
            stored = list(self._others.candidates(ids, chosen))
        places = range(self._count) if chosen is None else chosen.tolist()
        return [self._places.get(at, other) for at, other in zip(places, stored, strict=True)]
