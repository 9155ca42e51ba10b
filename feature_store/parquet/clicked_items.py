"""Counts ids of history files that are no item of the store, in a sample of each file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from feature_store.contract import MISSING, FeatureStore
from feature_store.parquet.histories import HistoryParquet

ROWS = 8192  # read of a file
CLICKS = 8192  # looked up of them, at most


class ClickedItems:
    """Looks up the first clicks of history files; warns of files most of whose ids are unknown."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self.distinct = 0  # items looked up, distinct in each file
        self.unknown = 0  # of these, no item of the store
        self.warnings: list[str] = []

    async def look_up(self, files: Iterable[tuple[Path, HistoryParquet]]) -> None:
        for path, source in files:
            await self._look_up(path, source)

    async def _look_up(self, path: Path, source: HistoryParquet) -> None:
        batch = next(source.batches(ROWS), None)
        if batch is None or not batch.histories:
            return
        longest = self._store.schema.history_length
        histories = [history[:longest] for history in batch.histories.values()]
        within = np.cumsum([len(history) for history in histories]) <= CLICKS
        first = max(1, int(within.sum()))
        ids = np.unique(np.concatenate(histories[:first]))[:CLICKS]
        if not len(ids):
            return
        unknown = int(((await self._store.items(ids)).status == MISSING).sum())
        self.distinct += len(ids)
        self.unknown += unknown
        # histories may be loaded before the items are
        if 2 * unknown > len(ids) and await self._store.count_items():
            self.warnings.append(
                f"{unknown:,} of the {len(ids):,} items in the first {first:,} histories of {path} "
                "are not in the store: is `--id-column` the column of their ids?"
            )
