"""Compares a store with the parquet files it was loaded from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from feature_store.contract import FOUND, MISSING, STALE, FeatureStore, Ids, ItemBatch, UserBatch
from feature_store.parquet.histories import HistoryParquet
from feature_store.parquet.items import ItemParquet, ItemParquetBatch
from feature_store.parquet.load import ahead
from feature_store.parquet.stored_texts import Id, item_texts, named, user_texts

BATCH_ROWS = 4096
ABSENT = {MISSING: "missing", STALE: "written with another schema"}
RecordBatch = ItemBatch | UserBatch


@dataclass(frozen=True, slots=True)
class Difference:
    """One record that differs between the store and the files."""

    kind: str  # item | history | user
    id: Id
    what: str


@dataclass(slots=True)
class Comparison:
    """Counts of a comparison. ``differences`` counts those yielded."""

    items: int = 0
    histories: int = 0
    users: int = 0  # user records
    grown: int = 0  # histories with later clicks: normal in a store in use
    rejected: int = 0  # invalid rows of the files
    joined_to_nothing: int = 0  # ids of further item or users files, missing in the first
    differing: int = 0  # items, users with conflicting values in a column that several files have
    clicked_items: int = 0  # distinct items of the first histories of each file
    unknown_items: int = 0  # of these, no item of the store
    superseded: int = 0  # history rows followed by a later one of their user
    warnings: list[str] = field(default_factory=list)
    store: dict[str, str | int] = field(default_factory=dict)  # its ``describe``
    differences: int = 0
    row: int = 0  # progress in the current file

    async def check_items(
        self, store: FeatureStore, source: ItemParquet
    ) -> AsyncIterator[Difference]:
        """Yield items that are missing or different in the store, then those in no file."""

        async def texts(ids: Ids) -> dict[int, str]:
            return await item_texts(store, ids)

        scan = store.scan_items()
        async for difference in self._records("item", source, store.items, texts, scan):
            yield difference

    async def check_users(
        self, store: FeatureStore, source: ItemParquet
    ) -> AsyncIterator[Difference]:
        """Yield user records that are missing or different, then those in no file."""

        async def texts(ids: Ids) -> dict[int, str]:
            return await user_texts(store, ids.tolist())

        scan = store.scan_users()
        async for difference in self._records("user", source, store.users, texts, scan):
            yield difference

    async def _records(
        self,
        kind: str,
        source: ItemParquet,
        stored: Callable[[Ids], Awaitable[RecordBatch]],
        texts: Callable[[Ids], Awaitable[dict[int, str]]],
        scan: AsyncIterator[RecordBatch],
    ) -> AsyncIterator[Difference]:
        seen = [np.zeros(0, np.int64)]
        async for batch in ahead(source.batches(BATCH_ROWS)):
            found, kept = await stored(batch.ids), await texts(batch.ids)
            for number, what in _record_differences(batch, found, kept):
                self.differences += 1
                yield Difference(kind, batch.texts.get(number, number), what)
            if kind == "item":
                self.items += len(batch.ids)
            else:
                self.users += len(batch.ids)
            self.rejected += len(batch.rejected)
            self.differing += batch.differing
            self.row = batch.next_row
            seen.append(batch.ids)
        self.joined_to_nothing += source.joined_to_nothing
        self.warnings += source.warnings
        known = np.concatenate(seen)
        async for scanned in scan:
            surplus = scanned.ids[~np.isin(scanned.ids, known)]
            for identity in named(surplus.tolist(), await texts(surplus)):
                self.differences += 1
                yield Difference(kind, identity, "in no file")

    async def check_histories(
        self, store: FeatureStore, source: HistoryParquet, later: Sequence[HistoryParquet]
    ) -> AsyncIterator[Difference]:
        """Yield differing histories of ``source``, without users that a ``later`` file repeats."""
        overridden = {user for other in later for user in other.users.tolist()}
        async for batch in ahead(source.batches(BATCH_ROWS)):
            expected = {u: h for u, h in batch.histories.items() if u not in overridden}
            found = await store.histories(list(expected))
            clicks = [history for history in found if history is not None]
            items = await item_texts(store, np.concatenate([np.zeros(0, np.int64), *clicks]))
            users = await user_texts(store, list(expected))
            for (user, history), stored in zip(expected.items(), found, strict=True):
                what = self._history(
                    history[: store.schema.history_length], stored, store, items | batch.item_texts
                )
                if not what and stored is not None and store.text_ids is not None:
                    what = _text_fault(batch.user_texts[user], users.get(user))
                    what = what or _nameless(stored, items)
                if what:
                    self.differences += 1
                    yield Difference("history", batch.user_texts.get(user, user), what)
            self.histories += len(expected)
            self.rejected += len(batch.rejected)
            self.row = batch.next_row

    def _history(
        self, expected: Ids, stored: Ids | None, store: FeatureStore, texts: Mapping[int, str]
    ) -> str | None:
        if stored is None:
            return "missing" if len(expected) else None
        if np.array_equal(stored, expected):
            return None
        if _grown(stored, expected, store.schema.history_length):
            self.grown += 1
            return None
        return f"{named(stored.tolist(), texts)} instead of {named(expected.tolist(), texts)}"


def _record_differences(
    batch: ItemParquetBatch, stored: RecordBatch, kept: Mapping[int, str]
) -> Iterator[tuple[int, str]]:
    """Yield number and difference; ``kept``: the text ids in the store."""
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
        yield int(batch.ids[at]), ABSENT.get(stored.status[at], "damaged")
    for at, columns in sorted(differing.items()):
        yield int(batch.ids[at]), f"different: {', '.join(columns)}"
    for number in batch.ids[same].tolist() if batch.texts else ():
        fault = _text_fault(batch.texts[number], kept.get(number))
        if fault:
            yield number, fault


def _text_fault(text: str, kept: str | None) -> str | None:
    if kept is None:
        return "its text is missing"
    return None if kept == text else f"its text is {kept!r}"


def _nameless(history: Ids, texts: Mapping[int, str]) -> str | None:
    numbers = [number for number in history.tolist() if number not in texts]
    return f"the texts of {numbers} are missing" if numbers else None


def _grown(stored: Ids, expected: Ids, length: int) -> bool:
    """Whether ``stored`` is ``expected`` with clicks before it, trimmed to ``length``."""
    for clicks in range(1, len(stored) + 1):
        rest = len(stored) - clicks
        trimmed = len(stored) == length and rest < len(expected)
        if (trimmed or rest == len(expected)) and np.array_equal(stored[clicks:], expected[:rest]):
            return True
    return False
