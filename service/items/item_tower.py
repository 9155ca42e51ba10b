"""From item records to what scoring needs of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import Ids, ItemRows
from model_export.bundle.runtime import FoldedModel
from service.items.table_layout import DerivedItems


def derive(model: FoldedModel, rows: ItemRows) -> tuple[DerivedItems, NDArray[np.bool_]]:
    """Item records (N,) through the item tower; and which of them can be scored.

    One whose numbers are not finite, or so large that scores overflow, would spoil the lists and
    histories that it is in.
    """
    towers = model.items(rows)
    items = DerivedItems(towers.vector, towers.row, towers.context, model.cold(rows))
    return items, model.scorable(towers)


def derive_into(
    insert: Callable[[Ids, DerivedItems], object], model: FoldedModel, ids: Ids, rows: ItemRows
) -> tuple[DerivedItems, NDArray[np.bool_]]:
    """Derive items (N) and ``insert`` those that can be scored. Returns as ``derive`` does."""
    items, finite = derive(model, rows)
    good = np.flatnonzero(finite)
    insert(ids[good], items.gather(good))
    return items, finite
