"""From item records to what scoring needs of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import ItemRows
from model_export.runtime import FoldedModel
from service.item_memory import DerivedItems


def derive(model: FoldedModel, rows: ItemRows) -> tuple[DerivedItems, NDArray[np.bool_]]:
    """Item records (N,) through the item tower; and which of them came out finite.

    A record whose numbers are not finite would make every score it touches NaN.
    """
    towers = model.items(rows)
    items = DerivedItems(towers.vector, towers.row, towers.context, model.cold(rows))
    finite = np.ones(len(rows), np.bool_)
    for part in (towers.vector, towers.row):
        finite &= np.isfinite(part).all(axis=1)
    return items, finite
