"""Held-out rows as requests: one user's history and a list of candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_store.parquet.columns import DataFileError
from feature_store.schema import FeatureSchema
from feature_store.wording import with_file
from model_export.bundle.errors import BundleError
from model_export.bundle.golden import by_name
from training.data.catalogue import Catalogue
from training.data.dataset import catalogue, user_tables
from training.data.reader import read_rows
from training.data.rows import Rows

FILE = "valid.parquet"
Positions = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class UserList:
    """One user's list; positions are rows of the catalogue."""

    history: Positions  # (L,) without padding
    candidates: Positions  # (C,)
    context: NDArray[np.int32]  # (C, context features)
    label: NDArray[np.float32]  # (C,) 0 or 1; NaN if unlabelled
    user: NDArray[np.void] | None = None  # (1,) of schema.user_dtype
    request: Mapping[str, float] = field(default_factory=dict)  # features by name

    def filled(self, items: Catalogue, to: int, random: np.random.Generator) -> UserList:
        """Pad to ``to`` candidates with other items of the catalogue, in their own contexts."""
        missing = max(0, to - len(self.candidates))
        more = random.integers(1, len(items), missing).astype(np.int32)
        levels = [items.rows[feature.name][more] for feature in items.schema.context]
        context = np.array(levels, np.int32).reshape(len(levels), missing).T
        return replace(
            self,
            candidates=np.concatenate([self.candidates, more]),
            context=np.concatenate([self.context, context]),
            label=np.concatenate([self.label, np.full(missing, np.nan, np.float32)]),
        )


def read_items(folder: Path, schema: FeatureSchema) -> Catalogue:
    """Read the items of a data folder. Raises BundleError for invalid data."""
    try:
        return catalogue(folder, schema)
    except (DataFileError, OSError) as error:
        raise BundleError(f"held-out data: {with_file(error)}") from error


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Labelled rows outside of the training data."""

    rows: Rows
    name: str

    @classmethod
    def read(
        cls,
        folder: Path,
        schema: FeatureSchema,
        cache: Path | None = None,
        users: Path | None = None,
        index: Path | None = None,
    ) -> HeldOut:
        """Read ``valid.parquet`` of a data folder. Raises BundleError for invalid data.

        The rows are cached in ``cache``, by default ``.cache`` in the folder. ``users`` is another
        users file, ``index`` a further one for features that it lacks; it may be absent.
        """
        items = read_items(folder, schema)
        try:
            tables = user_tables(folder, schema, users, index)
            rows = read_rows(folder / FILE, items, cache or folder / ".cache", tables=tables)
        except (DataFileError, OSError) as error:
            raise BundleError(f"held-out data: {with_file(error)}") from error
        return cls.of(rows, f"{folder.resolve().name}/{FILE}")

    @classmethod
    def of(cls, rows: Rows, name: str) -> HeldOut:
        """Check labels. Raises BundleError unless the rows have clicks and non-clicks."""
        if not rows.labelled:
            raise BundleError(f"held-out data: {name}: has no column 'label'")
        if not 0 < rows.label.sum() < len(rows):
            raise BundleError(
                f"held-out data: {name}: labels of one class only; use rows with clicks and without"
            )
        return cls(rows, name)

    def lists(self, most: int) -> Iterator[UserList]:
        """Yield rows grouped by user, history and request: ``most`` lists, spread over the file."""
        rows = self.rows
        mix = np.random.default_rng(0).integers(1, 2**62, rows.history.shape[1])
        pieces = range(0, len(rows), 8192)
        alike = np.concatenate(  # equal for equal histories
            [rows.history[i : i + 8192].astype(np.int64) @ mix for i in pieces]
        )
        keys = [alike, rows.user]
        if rows.users is not None:
            keys.append(rows.users.row)
        if rows.request is not None:
            raw = np.ascontiguousarray(rows.request)
            raw = raw.view(np.dtype((np.void, raw.dtype.itemsize)))  # NaN equals itself
            keys.append(np.unique(raw, return_inverse=True)[1])
        order = np.lexsort(keys)
        differs = np.any([np.diff(key[order]) != 0 for key in keys], axis=0)
        edges = np.flatnonzero(np.concatenate([[True], differs, [True]]))
        count = len(edges) - 1
        for i in np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64)):
            chosen = order[edges[i] : edges[i + 1]]
            past = rows.history[chosen[0]]
            yield UserList(
                past[past != 0],
                rows.target[chosen],
                rows.context[chosen],
                rows.label[chosen],
                None
                if rows.users is None
                else rows.users.record(rows.schema, int(rows.users.row[chosen[0]])),
                {} if rows.request is None else by_name(rows.request[chosen[0]]),
            )
