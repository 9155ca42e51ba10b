"""Popularity levels of items by day: what could be known before that day.

Of items with a click before day d, level 1 + ⌊10·b/m⌋ has an item of which b of these m items have
fewer clicks before d: ten quantiles, and equal counts have equal levels, the lowest of the tie.
Level 0: no click before d. Days are UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.contract import MAX_ID
from feature_store.parquet.columns import DataFileError, integers
from feature_store.parquet.parts import ParquetParts
from training.progress import OnProgress, no_progress

ITEM, TIME = "item_id", "time"
LEVELS = 10
PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
MOST_DAYS = 36_525  # a hundred years: beyond it the unit of time is wrong
FIRST_DAY, LAST_DAY = -719_162, 2_932_896  # of the years 1 and 9999: others are of another unit
BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Clicks:
    """n clicks, of items numbered by ``items``."""

    items: NDArray[np.int64]  # (I,) ids, ascending
    item: NDArray[np.int32]  # (n,) into items
    day: NDArray[np.int32]  # (n,) since 1970-01-01

    @classmethod
    def read(
        cls, path: Path, unit: str | None = None, on_progress: OnProgress = no_progress
    ) -> Clicks:
        """Read ``item_id`` and ``time`` of a parquet file or folder. Raises DataFileError."""
        ids, day = read_days(path, unit, on_progress)
        if padding := int((ids == 0).sum()):
            raise DataFileError(
                f"{path}: column {ITEM}: {padding:,} clicks of item 0, which is padding; leave "
                "them out"
            )
        if not len(ids):
            raise DataFileError(f"{path}: holds no rows")
        span = int(day.max()) - int(day.min()) + 1
        if span > MOST_DAYS:
            raise DataFileError(f"{path}: column {TIME}: spans {span:,} days: see --unit")
        items, item = np.unique(ids, return_inverse=True)
        return cls(items, item.astype(np.int32), day)

    def by_day(self) -> Iterator[tuple[int, NDArray[np.int8]]]:
        """Yield (day, levels (I,)) from the day after the first click to that after the last."""
        order = np.argsort(self.day, kind="stable")
        first, last = int(self.day[order[0]]), int(self.day[order[-1]])
        edges = np.searchsorted(self.day[order], np.arange(first, last + 2))
        total = np.zeros(len(self.items), np.int64)
        levels = np.zeros(len(self.items), np.int8)
        for day, start, end in zip(range(first, last + 1), edges, edges[1:], strict=False):
            if start < end:
                total += np.bincount(self.item[order[start:end]], minlength=len(total))
                levels = levels_of(total)
            yield day + 1, levels


def levels_of(clicks: NDArray[np.int64]) -> NDArray[np.int8]:
    """Compute the level of each item from its number of clicks, (I,) -> (I,)."""
    clicked = clicks > 0
    counts = np.sort(clicks[clicked])
    fewer = np.searchsorted(counts, clicks, side="left")
    return np.where(clicked, 1 + LEVELS * fewer // max(1, len(counts)), 0).astype(np.int8)


def joined(clicks: Clicks, ids: NDArray[np.int64], day: NDArray[np.int32]) -> NDArray[np.int8]:
    """Find the level of an item on a day for each row, (n,); 0 for an item without clicks."""
    at = np.minimum(np.searchsorted(clicks.items, ids), len(clicks.items) - 1)
    known = clicks.items[at] == ids
    found = np.zeros(len(ids), np.int8)
    order = np.argsort(day, kind="stable")
    sorted_day, start = day[order], 0
    for current, levels in clicks.by_day():
        start = int(np.searchsorted(sorted_day, current))
        rows = order[start : int(np.searchsorted(sorted_day, current, side="right"))]
        found[rows] = levels[at[rows]]
    later = order[int(np.searchsorted(sorted_day, current, side="right")) :]
    found[later] = levels[at[later]]
    return np.where(known, found, 0).astype(np.int8)


def read_days(
    path: Path, unit: str | None, on_progress: OnProgress = no_progress
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Read item ids (n,) and days (n,). Raises DataFileError, naming row and column."""
    parts = ParquetParts.read(path)
    for column in (ITEM, TIME):
        parts.require(column)
    ids, days = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    for first, _, columns in parts.batches([ITEM, TIME], BATCH_ROWS):
        read = integers(
            columns[ITEM], f"{path}: column {ITEM}", below=MAX_ID + 1, limit="beyond 63 bits"
        )
        for row in sorted(read.faults)[:1]:
            raise DataFileError(str(parts.rejected(first + row, ITEM, read.faults[row])))
        for row in np.flatnonzero(columns[TIME].is_null().to_numpy(zero_copy_only=False))[:1]:
            raise DataFileError(str(parts.rejected(first + int(row), TIME, "null")))
        ids.append(read.values.astype(np.int64, copy=False))
        days.append(days_of(columns[TIME], f"{path}: column {TIME}", unit))
        on_progress(f"read {path.name}", first + len(ids[-1]), parts.rows)
    return np.concatenate(ids), np.concatenate(days)


def days_of(times: pa.Array, place: str, unit: str | None) -> NDArray[np.int32]:
    """Compute the UTC days (n,) of timestamps, dates, or integers of a unit. No time is null."""
    kind = times.type
    if pa.types.is_date(kind):
        return times.cast(pa.date32()).cast(pa.int32()).to_numpy()  # type: ignore[no-any-return]
    if pa.types.is_timestamp(kind):
        unit = kind.unit
    elif not pa.types.is_integer(kind):
        raise DataFileError(f"{place}: holds {kind}, not times")
    elif unit is None:
        raise DataFileError(f"{place}: holds {kind}; name its unit: --unit s, ms, us or ns")
    values = times if pa.types.is_uint64(kind) else times.cast(pa.int64())
    days: NDArray[Any] = values.to_numpy() // PER_DAY[unit]
    if len(days) and not FIRST_DAY <= int(days.min()) <= int(days.max()) <= LAST_DAY:
        raise DataFileError(f"{place}: beyond the years 1 to 9999: see --unit")
    return days.astype(np.int32)
