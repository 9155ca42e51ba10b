"""All items a network is trained on, found by id. Row 0 is the all-zero padding item."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feature_store.contract import Ids, ItemRows
from feature_store.parquet.columns import DataFileError
from feature_store.parquet.items import ItemParquet
from feature_store.schema import Dense, FeatureSchema

logger = logging.getLogger("training")


@dataclass(frozen=True)
class Catalogue:
    """N items. In the challenge's files an item's id, row and embedding index are one number."""

    schema: FeatureSchema
    ids: Ids  # (N + 1,) in the order of the file; ids[0] is 0
    rows: ItemRows  # (N + 1,) of schema.item_dtype; dense features in their storage precision
    tensors: dict[str, Tensor] = field(init=False, repr=False)  # by item feature, (N + 1, …)
    _by_id: tuple[Ids, NDArray[np.int32]] = field(init=False, repr=False)  # ids ascending, rows

    def __post_init__(self) -> None:
        order = np.argsort(self.ids, kind="stable")
        object.__setattr__(self, "_by_id", (self.ids[order], order.astype(np.int32)))
        tensors = {
            f.name: torch.from_numpy(
                self.rows[f.name].astype(np.float32 if isinstance(f, Dense) else np.int64)
            )
            for f in self.schema.item
        }
        object.__setattr__(self, "tensors", tensors)

    @classmethod
    def read(cls, paths: list[Path], schema: FeatureSchema) -> Catalogue:
        """The items of the first file and its parts (files with the same columns), further columns
        joined from the others by id. What finds no item, or differs, is logged.

        Raises DataFileError (file, row, column) for whatever a network cannot be trained on: an
        index beyond its vocabulary, a vector of another size, NaN, an id given twice, no items.
        """
        ids: list[Ids] = [np.zeros(1, np.int64)]
        rows: list[ItemRows] = [np.zeros(1, schema.item_dtype)]
        items = ItemParquet(paths, schema, strict=True)
        for batch in items.batches():
            if (batch.ids == 0).any():
                raise DataFileError(
                    f"{paths[0]}: item id 0 has features, but 0 is padding in a history: "
                    "give that item another id"
                )
            ids.append(batch.ids)
            rows.append(batch.rows)
        for warning in items.warnings:
            logger.warning("warning: %s", warning)
        if len(ids) == 1 or not sum(map(len, ids[1:])):
            raise DataFileError(f"{paths[0]}: holds no items")
        return cls(schema, np.concatenate(ids), np.concatenate(rows))

    def __len__(self) -> int:
        """How many rows there are, the padding item's included."""
        return len(self.ids)

    def row_of(self, ids: Ids) -> NDArray[np.int32]:
        """The row of each id, 0 for 0 and −1 where there is no such item. Any shape."""
        known, row = self._by_id
        if known[-1] == len(known) - 1:  # 0 … N without a gap: an id is its own place
            at = np.clip(ids, 0, len(known) - 1)
        else:
            at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return np.where(known[at] == ids, row[at], np.int32(-1))

    @property
    def digest(self) -> str:
        """Changes when an id gets another row."""
        return hashlib.sha256(self.ids.tobytes()).hexdigest()
