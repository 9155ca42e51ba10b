"""Runs the user tower: user and request features in, one row per request out.

Tables of many users are mapped from the bundle's files: the page cache holds them once for all
processes of a machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema, Numeric
from model_export.bundle.bundle import REBUILD
from model_export.bundle.errors import BundleError, said
from model_export.bundle.manifest import USER_TOWER, table_file
from model_export.bundle.sessions import open_session
from model_export.bundle.vectors import Floats, Indices, UserRow, known

UserRows = NDArray[np.void]  # (N,) of schema.user_dtype
Value = int | float | None


class Folder(Protocol):
    """A bundle, or a folder of graphs being written."""

    @property
    def path(self) -> Path: ...
    @property
    def schema(self) -> FeatureSchema: ...
    def graph(self, name: str) -> Path: ...


class UserTower:
    """The graph and its mapped tables, for a schema with user or request features."""

    def __init__(self, bundle: Folder, threads: int) -> None:
        self.schema = bundle.schema
        self.session: onnxruntime.InferenceSession = open_session(bundle.graph(USER_TOWER), threads)
        features = {f.name: f for f in (*self.schema.user, *self.schema.request)}
        inputs = (value.name.rpartition(".") for value in self.session.get_inputs())
        self.tables: dict[str, Floats] = {}
        for name, _, kind in inputs:
            feature = features.get(name) if kind == "vector" else None
            if isinstance(feature, Categorical | CategoricalList):
                self.tables[name] = _opened(bundle.path / table_file(name), feature)

    def row(self, record: UserRows | None, request: Mapping[str, Value]) -> UserRow:
        """One user's record (1,), None for none, and the request's features by name.

        A request feature that is absent or None is missing, as index 0 and NaN are.
        """
        feeds: dict[str, NDArray[Any]] = {}
        defaulted: list[str] = []
        given = np.zeros(1, self.schema.user_dtype) if record is None else record
        for feature in self.schema.user:
            values = given[feature.name]
            if isinstance(feature, Dense):
                feeds[feature.name] = np.ascontiguousarray(values, np.float32)
                missing = record is None
            else:
                indices = known(values, feature.vocabulary)
                self._feed(feeds, feature, indices)
                missing = record is None or (isinstance(feature, Categorical) and not indices[0])
            if missing:
                defaulted.append(feature.name)
        for wanted in self.schema.request:
            value = request.get(wanted.name)
            if isinstance(wanted, Numeric):
                number = np.float32(np.nan if value is None else value)
                feeds[wanted.name], missing = np.full(1, number), bool(np.isnan(number))
            else:
                index = value if value is not None and 0 < value < wanted.vocabulary else 0
                self._feed(feeds, wanted, np.full(1, index, np.int32))
                missing = not index
            if missing:
                defaulted.append(wanted.name)
        vector, row = self.session.run(["user", "user_row"], feeds)
        return UserRow(vector, row, tuple(defaulted))

    @cached_property
    def unknown(self) -> UserRow:
        """A request of which no user and no request feature is known."""
        return self.row(None, {})

    def _feed(
        self, feeds: dict[str, NDArray[Any]], feature: Categorical | CategoricalList, index: Indices
    ) -> None:
        table = self.tables.get(feature.name)
        if table is None:
            feeds[feature.name] = index
        else:
            feeds[f"{feature.name}.vector"] = _embedded(table, index)


def _embedded(table: Floats, index: Indices) -> Floats:
    """Rows (N,), or the masked mean of (N, slots): row 0 of the table is zero."""
    rows: Floats = table[index]
    if index.ndim == 1:
        return rows
    used = np.count_nonzero(index, axis=1)[:, None].astype(np.float32)
    mean: Floats = rows.sum(axis=1) / (used + np.float32(1e-12))
    return mean


def _opened(file: Path, feature: Categorical | CategoricalList) -> Floats:
    """Map a table for reading. Raises BundleError for another shape or type."""
    shape = (feature.vocabulary, feature.width)
    try:
        table = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise BundleError(f"{file}: cannot be mapped: {said(error)}; {REBUILD}") from error
    if not isinstance(table, np.ndarray) or table.dtype != np.dtype("<f4") or table.shape != shape:
        raise BundleError(f"{file}: not a table of {shape} float32; {REBUILD}")
    return table.view(np.ndarray)  # of the same pages
