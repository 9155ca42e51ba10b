"""From item records to what scoring needs of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import Ids, ItemBatch, ItemRows
from model_export.bundle.runtime import FoldedModel
from service.items.table_layout import DerivedItems


def derive(
    model: FoldedModel, rows: ItemRows, lacks: NDArray[np.bool_] | None = None
) -> tuple[DerivedItems, NDArray[np.bool_]]:
    """Item records (N,) through the item tower; and which of them can be scored.

    ``lacks``: items without the content that the model wants; by default none. An item whose
    numbers are not finite, or so large that scores overflow, would spoil the lists and histories
    that it is in.
    """
    towers = model.items(rows)
    lacks = np.zeros(len(rows), np.bool_) if lacks is None else lacks
    items = DerivedItems(towers.vector, towers.row, towers.context, model.cold(rows), lacks)
    return items, model.scorable(towers)


def derive_into(
    insert: Callable[[Ids, DerivedItems], object], model: FoldedModel, batch: ItemBatch
) -> tuple[DerivedItems, NDArray[np.bool_]]:
    """Derive items (N), all found, with the content that the model wants, and ``insert`` those
    that can be scored. Returns as ``derive`` does."""
    rows, lacks = batch.rows, None
    if model.wanted is not None:
        rows, lacks = batch.choose(model.wanted)
    items, finite = derive(model, rows, lacks)
    good = np.flatnonzero(finite)
    insert(batch.ids[good], items.gather(good))
    return items, finite
