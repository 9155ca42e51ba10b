"""Finds levels that may count clicks after a label: static ones, the same on every day.

As far as the files show, a level above 0 could not be known if no click of its item precedes the
label. A click precedes it as an item of a history, or as a positive row: of an earlier day where
rows have a ``time``, of the training rows where they have none. What no file holds cannot be found:
earlier clicks on which a level rests rightly, and later ones in the level of an item that has
earlier clicks, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.parquet.columns import DataFileError
from feature_store.parquet.parts import ParquetParts
from feature_store.schema import Categorical
from training.data.levels import BATCH_ROWS, TIME, days_of
from training.data.rows import Rows

SUFFIX = "level"  # of the names of level features
NEVER = np.iinfo(np.int32).max
Days = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class StaticLevel:
    """A level feature with one level per item in all rows."""

    feature: str
    source: str  # item table or rows
    days: int | None  # that the rows span; None without times
    labels: int
    early: int | None  # labels whose level could not be known; None without training rows

    def __str__(self) -> str:
        span = "rows without time" if self.days is None else f"rows of {self.days:,} days"
        counted = ""
        if self.early is not None:
            counted = (
                f"{self.early:,} of {self.labels:,} labels have a level above 0 without an "
                "earlier click of the item in these files; "
            )
        return (
            f"{self.feature}: one level per item, from the {self.source}, in {span}; {counted}"
            "the level may count clicks after the label (`training levels` counts those before)"
        )


def static_levels(
    folder: Path, valid: Rows, train: Rows | None, unit: str | None = None
) -> list[StaticLevel]:
    """Find the static levels among the features whose names end in ``level``.

    ``unit``: of a column ``time`` of integers, which is passed over without it.
    """
    parts = {"valid": valid} if train is None else {"train": train, "valid": valid}
    levels = list(_levels(list(parts.values())))
    if not levels:
        return []
    dated = [d for name in parts if (d := _days(folder / f"{name}.parquet", unit)) is not None]
    day = np.concatenate(dated) if len(dated) == len(parts) else None
    early = None if train is None else _unknown(valid, train, day)
    target = np.concatenate([part.target for part in parts.values()])
    return [
        StaticLevel(
            feature=name,
            source=source,
            days=None if day is None else len(np.unique(day)),
            labels=len(valid),
            early=None if early is None else int((early & (level[-len(valid) :] > 0)).sum()),
        )
        for name, source, level in levels
        if _is_static(target, level, day)
    ]


def _levels(parts: Sequence[Rows]) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    """Yield name, source and level of each row, (n,) over all parts."""
    schema = parts[0].schema
    for feature in schema.item:
        if isinstance(feature, Categorical) and feature.name.endswith(SUFFIX):
            table = parts[0].items.tensors[feature.name].numpy()
            yield feature.name, "item table", np.concatenate([table[p.target] for p in parts])
    for i, context in enumerate(schema.context):
        if context.name.endswith(SUFFIX) and context.name not in schema.shared:
            yield context.name, "rows", np.concatenate([p.context[:, i] for p in parts])


def _is_static(target: NDArray[np.int32], level: NDArray[np.int64], day: Days | None) -> bool:
    """Whether every item has one level, and one that recurs: on another day, with days."""
    order = np.argsort(target, kind="stable")
    starts = np.flatnonzero(np.diff(target[order], prepend=-1))

    def varies(values: NDArray[Any]) -> NDArray[np.bool_]:
        sorted_values = values[order]
        most = np.maximum.reduceat(sorted_values, starts)
        return most != np.minimum.reduceat(sorted_values, starts)  # type: ignore[no-any-return]

    recurs = np.diff(starts, append=len(target)) > 1 if day is None else varies(day)
    return bool(recurs.any() and not varies(level).any() and level.min() != level.max())


def _unknown(valid: Rows, train: Rows, day: Days | None) -> NDArray[np.bool_]:
    """Mark the rows of ``valid`` without an earlier click of their item, (rows,)."""
    known = np.full(len(valid.items), NEVER, np.int32)  # by item, the first day with such a click
    start = 0
    for part in (train, valid):
        for at in range(0, len(part), BATCH_ROWS):
            rows = slice(at, at + BATCH_ROWS)
            history, clicked = part.history[rows], part.label[rows] > 0.5
            if day is None:
                known[history] = 0
                if part is train:
                    known[part.target[rows][clicked]] = 0
            else:
                on = day[start : start + len(part)][rows]
                np.minimum.at(known, history.ravel(), np.repeat(on, history.shape[1]))
                np.minimum.at(known, part.target[rows][clicked], on[clicked] + 1)
        start += len(part)
    on_day = 0 if day is None else day[-len(valid) :]
    return known[valid.target] > on_day


def _days(path: Path, unit: str | None) -> Days | None:
    """Read the days of the rows, (n,); None without times that can be read as days."""
    parts, days = ParquetParts.read(path), []
    if TIME not in parts.columns:
        return None
    try:
        for _, _, columns in parts.batches([TIME], BATCH_ROWS):
            if columns[TIME].null_count:
                return None
            days.append(days_of(columns[TIME], str(path), unit))
    except DataFileError:
        return None
    return np.concatenate(days)
