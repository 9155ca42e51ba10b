"""Texts of the ids in an answer that gives ids as strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from feature_store.contract import Ids
from model_export.bundle.vectors import Positions
from service.items.item_texts import ItemTexts


class IdTexts(Protocol):
    """Texts of one request's ids."""

    async def read(self, history: Ids) -> None:
        """Read the texts of stored history items, before ``of`` is called with them."""

    def of(self, ids: Sequence[int]) -> Sequence[int | str | None]:
        """Return the text of each id; None for one that has none. A number is its own."""

    def candidates(self, ids: Ids, chosen: Positions | None) -> Sequence[int | str]:
        """Return the texts of the request's candidates (C,), or of those at the positions."""


class DecimalTexts:
    """Ids that are numbers, in decimal."""

    async def read(self, history: Ids) -> None:
        """Nothing is to be read."""

    def of(self, ids: Sequence[int]) -> list[str | None]:
        return list(map(str, ids))

    def candidates(self, ids: Ids, chosen: Positions | None) -> list[str]:
        return list(map(str, (ids if chosen is None else ids[chosen]).tolist()))


class StoredTexts:
    """Text ids: the request's own, and those that the store has of history items."""

    def __init__(self, candidates: Sequence[str], given: dict[int, str], stored: ItemTexts) -> None:
        """``candidates`` are those of the request, ``given`` all its items by number."""
        self._candidates, self._known, self._stored = candidates, given, stored

    async def read(self, history: Ids) -> None:
        unknown = [item for item in history.tolist() if item not in self._known]
        if unknown:
            self._known |= await self._stored.of(unknown)

    def of(self, ids: Sequence[int]) -> list[str | None]:
        return list(map(self._known.get, ids))

    def candidates(self, ids: Ids, chosen: Positions | None) -> list[str]:
        texts = self._candidates
        return list(texts) if chosen is None else [texts[at] for at in chosen.tolist()]
