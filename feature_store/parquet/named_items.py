"""Remembers which text ids of items a load has written, so that each is written once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from feature_store.contract import FeatureStore, Ids


class NamedItems:
    """Writes texts to a store, without those written before: 16 bytes are kept of each."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._numbers: Ids = np.zeros(0, np.int64)  # (N,) ascending
        self._hashes: Ids = np.zeros(0, np.int64)  # (N,) a number may have but one text

    async def write(self, texts: Mapping[int, str]) -> None:
        """Write the texts. TextCollision if a number has another one."""
        if not texts:
            return
        numbers = np.fromiter(texts, np.int64, len(texts))
        hashes = np.fromiter(map(hash, texts.values()), np.int64, len(texts))
        at = np.searchsorted(self._numbers, numbers)
        known = at < len(self._numbers)
        known[known] = self._numbers[at[known]] == numbers[known]
        known[known] = self._hashes[at[known]] == hashes[known]
        if known.all():
            return
        fresh = numbers[~known]
        await self._store.name_items({number: texts[number] for number in fresh.tolist()})
        order = np.argsort(fresh)
        place = np.searchsorted(self._numbers, fresh[order])
        self._numbers = np.insert(self._numbers, place, fresh[order])
        self._hashes = np.insert(self._hashes, place, hashes[~known][order])
