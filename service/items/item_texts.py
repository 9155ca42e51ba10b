"""Texts of items, of a store of text ids: kept in the store, and cached by each process.

The text of a number never changes, so that the cache is never stale.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from feature_store.errors import TextCollision
from service.errors import StoreFailure
from service.items.store_client import StoreReader

MOST_CACHED = 1 << 16
NamedItem = tuple[int, str]  # number and text


class ItemTexts:
    """Reads and writes the texts, those that are not cached in one round trip."""

    def __init__(self, store: StoreReader, most: int = MOST_CACHED) -> None:
        self._store, self._most = store, most
        # All of them in the store; oldest first. Not a dict: see ``NegativeCache``.
        self._cached: OrderedDict[int, str] = OrderedDict()

    async def of(self, numbers: Sequence[int]) -> dict[int, str]:
        """Return the texts of items. Numbers without one are left out and counted, as are those
        that the store fails to answer, if the service may do without it (else StoreFailure)."""
        cached = self._cached
        found = {number: cached[number] for number in numbers if number in cached}
        missing = list({number for number in numbers if number not in found})
        if missing:
            try:
                texts = await self._store.item_texts(np.array(missing, np.int64))
            except StoreFailure:
                if not self._store.may_do_without:
                    raise
                texts = [None] * len(missing)
            read = {n: text for n, text in zip(missing, texts, strict=True) if text is not None}
            self._store.metrics.items_unnamed.inc(len(missing) - len(read))
            self._cache(read)
            found |= read
        return found

    async def name(self, items: Iterable[NamedItem]) -> set[NamedItem]:
        """Keep the texts of items. Returns those that are refused, because their numbers are other
        texts'. StoreFailure."""
        fresh, refused = dict[int, str](), set[NamedItem]()
        for number, text in items:
            if self._cached.get(number) != text and fresh.setdefault(number, text) != text:
                refused.add((number, text))
        while fresh:
            try:
                await self._store.name_items(fresh)
            except TextCollision as error:
                kept = await self._store.item_texts(np.array(list(fresh), np.int64))
                others = {
                    (number, text)
                    for (number, text), there in zip(fresh.items(), kept, strict=True)
                    if there not in (None, text)
                }
                if not others:
                    raise self._store.failure(error) from error
                refused |= others
                fresh = {
                    number: text for number, text in fresh.items() if (number, text) not in others
                }
            else:
                self._cache(fresh)
                break
        return refused

    def _cache(self, texts: Mapping[int, str]) -> None:
        self._cached.update(texts)
        while len(self._cached) > self._most:
            self._cached.popitem(last=False)
