"""Negative cache: items that the store has no readable record of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import MutableMapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import FOUND, Ids

CAPACITY = 65_536  # ids
NEVER = None, -1  # fetched, or remembered
Known = tuple[int, int] | tuple[None, int]  # MISSING | CORRUPT, and the item's count of changes


class NegativeCache:
    """Of one version's table; the oldest are evicted.

    An entry is valid until the item's count of changes grows.
    """

    def __init__(self) -> None:
        # Not a dict: its first key is found by passing over all that were deleted before it.
        self._status: OrderedDict[int, tuple[int, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._status)

    def get(self, item: int) -> Known:
        return self._status.get(item, NEVER)

    def keep(self, ids: Ids, status: NDArray[np.uint8], counts: NDArray[np.int64]) -> None:
        """Remember those of the items (N,) that are not FOUND."""
        for at in np.flatnonzero(status != FOUND).tolist():
            self._status[int(ids[at])] = int(status[at]), int(counts[at])
        while len(self._status) > CAPACITY:
            self._status.popitem(last=False)

    def drop(self, ids: Ids) -> None:
        drop(self._status, ids)

    def clear(self) -> None:
        self._status.clear()


def drop(kept: MutableMapping[int, Any], ids: Ids) -> None:
    """Iterate over the shorter of the two: a bulk load changes many items at once."""
    gone = ids.tolist() if len(ids) <= len(kept) else set(kept) & set(ids.tolist()) if kept else ()
    for item in gone:
        kept.pop(item, None)
