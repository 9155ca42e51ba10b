"""Item catalogue of training: features by row, rows by id. Row 0 is the all-zero padding item."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feature_store.contract import Ids, ItemRows
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.items import ItemParquet
from feature_store.schema import Dense, FeatureSchema, Stored

logger = logging.getLogger("training")


def feature_tensors(features: Sequence[Stored], rows: NDArray[np.void]) -> dict[str, Tensor]:
    """Convert records to a tensor per feature: int64 indices, float32 vectors."""
    return {
        f.name: torch.from_numpy(
            rows[f.name].astype(np.float32 if isinstance(f, Dense) else np.int64)
        )
        for f in features
    }


@dataclass(frozen=True)
class Catalogue:
    """N items. In the challenge's files, id, row and embedding index of an item are equal."""

    schema: FeatureSchema
    ids: Ids  # (N + 1,) in the order of the file; ids[0] is 0
    rows: ItemRows  # (N + 1,) of schema.item_dtype; dense features in their storage precision
    tensors: dict[str, Tensor] = field(init=False, repr=False)  # by item feature, (N + 1, …)
    _by_id: tuple[Ids, NDArray[np.int32]] = field(init=False, repr=False)  # ids ascending, rows

    def __post_init__(self) -> None:
        order = np.argsort(self.ids, kind="stable")
        object.__setattr__(self, "_by_id", (self.ids[order], order.astype(np.int32)))
        tensors = feature_tensors(self.schema.item, self.rows)
        object.__setattr__(self, "tensors", tensors)

    @classmethod
    def read(cls, paths: list[Path], schema: FeatureSchema) -> Catalogue:
        """Read items from the first file and its parts (files with the same columns); join further
        columns from the others by id. Unmatched and differing rows are logged.

        Raises DataFileError (file, row, column) for an index beyond its vocabulary, a vector of
        another size, NaN, a duplicate id, no items.
        """
        ids: list[Ids] = [np.zeros(1, np.int64)]
        rows: list[ItemRows] = [np.zeros(1, schema.item_dtype)]
        items = ItemParquet(paths, schema, strict=True)
        for batch in items.batches():
            if (batch.ids == 0).any():
                raise DataFileError(
                    f"{paths[0]}: item id 0 has features, but 0 is padding in a history: "
                    "use another id for that item"
                )
            ids.append(batch.ids)
            rows.append(batch.rows)
        for warning in items.warnings:
            logger.warning("warning: %s", warning)
        if len(ids) == 1 or not sum(map(len, ids[1:])):
            raise DataFileError(f"{paths[0]}: holds no items")
        return cls(schema, np.concatenate(ids), np.concatenate(rows))

    def __len__(self) -> int:
        """Number of rows, the padding item included."""
        return len(self.ids)

    def row_of(self, ids: Ids) -> NDArray[np.int32]:
        """Look up the row of each id: 0 for 0, −1 for an unknown item. Any shape."""
        known, row = self._by_id
        if known[-1] == len(known) - 1:  # 0 … N without a gap: an id is its own position
            at = np.clip(ids, 0, len(known) - 1)
        else:
            at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return np.where(known[at] == ids, row[at], np.int32(-1))

    @property
    def digest(self) -> str:
        """Digest of ids and their rows."""
        return hashlib.sha256(self.ids.tobytes()).hexdigest()

    @property
    def features_digest(self) -> str:
        """Digest of the items' features."""
        return hashlib.sha256(self.rows.tobytes()).hexdigest()[:16]
