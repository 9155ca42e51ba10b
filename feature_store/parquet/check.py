"""Compares a store with the parquet files it was loaded from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from feature_store.contract import FOUND, MISSING, FeatureStore, Ids, ItemBatch
from feature_store.parquet.histories import HistoryParquet
from feature_store.parquet.items import ItemParquet, ItemParquetBatch
from feature_store.parquet.load import ahead

BATCH_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Difference:
    """One record that differs between the store and the files."""

    kind: str  # item | history
    id: int
    what: str


@dataclass(slots=True)
class Comparison:
    """Counts of a comparison. ``differences`` counts those yielded."""

    items: int = 0
    histories: int = 0
    grown: int = 0  # histories with later clicks: normal in a store in use
    rejected: int = 0  # invalid rows of the files
    joined_to_nothing: int = 0  # ids of further item files that are missing in the first
    differing: int = 0  # items with conflicting values in a column that several files have
    superseded: int = 0  # history rows followed by a later one of their user
    warnings: list[str] = field(default_factory=list)
    store: dict[str, str | int] = field(default_factory=dict)  # its ``describe``
    differences: int = 0
    row: int = 0  # progress in the current file
    _seen: list[Ids] = field(default_factory=list)

    async def check_items(
        self, store: FeatureStore, source: ItemParquet
    ) -> AsyncIterator[Difference]:
        """Yield items that are missing or different in the store, then those in no file."""
        async for batch in ahead(source.batches(BATCH_ROWS)):
            stored = await store.items(batch.ids)
            for difference in _item_differences(batch, stored):
                self.differences += 1
                yield difference
            self.items += len(batch.ids)
            self.rejected += len(batch.rejected)
            self.differing += batch.differing
            self.row = batch.next_row
            self._seen.append(batch.ids)
        self.joined_to_nothing = source.joined_to_nothing
        self.warnings += source.warnings
        known = np.concatenate(self._seen) if self._seen else np.zeros(0, np.int64)
        async for found in store.scan_items():
            for item in found.ids[~np.isin(found.ids, known)].tolist():
                self.differences += 1
                yield Difference("item", item, "in no file")

    async def check_histories(
        self, store: FeatureStore, source: HistoryParquet, later: Sequence[HistoryParquet]
    ) -> AsyncIterator[Difference]:
        """Yield differing histories of ``source``, without users that a ``later`` file repeats."""
        overridden = {user for other in later for user in other.users.tolist()}
        async for batch in ahead(source.batches(BATCH_ROWS)):
            expected = {u: h for u, h in batch.histories.items() if u not in overridden}
            found = await store.histories(list(expected))
            for (user, history), stored in zip(expected.items(), found, strict=True):
                what = self._history(history[: store.schema.history_length], stored, store)
                if what:
                    self.differences += 1
                    yield Difference("history", user, what)
            self.histories += len(expected)
            self.rejected += len(batch.rejected)
            self.row = batch.next_row

    def _history(self, expected: Ids, stored: Ids | None, store: FeatureStore) -> str | None:
        if stored is None:
            return "missing" if len(expected) else None
        if np.array_equal(stored, expected):
            return None
        if _grown(stored, expected, store.schema.history_length):
            self.grown += 1
            return None
        return f"{stored.tolist()} instead of {expected.tolist()}"


def _item_differences(batch: ItemParquetBatch, stored: ItemBatch) -> Iterator[Difference]:
    names = batch.rows.dtype.names or ()
    same = stored.status == FOUND
    differing: dict[int, list[str]] = {}
    for name in names:
        unequal = stored.rows[name] != batch.rows[name]
        if unequal.ndim > 1:
            unequal = unequal.any(axis=1)
        for at in np.flatnonzero(unequal & same).tolist():
            differing.setdefault(at, []).append(name)
    for at in np.flatnonzero(~same).tolist():
        what = "missing" if stored.status[at] == MISSING else "damaged"
        yield Difference("item", int(batch.ids[at]), what)
    for at, columns in sorted(differing.items()):
        yield Difference("item", int(batch.ids[at]), f"different: {', '.join(columns)}")


def _grown(stored: Ids, expected: Ids, length: int) -> bool:
    """Whether ``stored`` is ``expected`` with clicks before it, trimmed to ``length``."""
    for clicks in range(1, len(stored) + 1):
        rest = len(stored) - clicks
        trimmed = len(stored) == length and rest < len(expected)
        if (trimmed or rest == len(expected)) and np.array_equal(stored[clicks:], expected[:rest]):
            return True
    return False
