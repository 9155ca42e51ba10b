"""What every feature store promises. One test suite runs unchanged against all of them.

Item ids and user ids are the caller's own: non-negative 63-bit integers, not necessarily dense.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from feature_store.schema import FeatureSchema

Ids = NDArray[np.int64]
ItemRows = NDArray[np.void]  # (N,) of schema.item_dtype

FOUND, MISSING, CORRUPT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class ItemBatch:
    """Item records in the order asked. Rows that are not FOUND are all zero."""

    ids: Ids  # (N,)
    rows: ItemRows  # (N,)
    status: NDArray[np.uint8]  # (N,) FOUND | MISSING | CORRUPT


class FeatureStore(Protocol):
    """User histories and item records. Errors are ``feature_store.errors.StoreError``."""

    schema: FeatureSchema

    async def history(self, user_id: int) -> Ids | None:
        """The user's item ids, newest first, at most ``history_length``; None if never seen."""

    async def append(self, user_id: int, item_ids: Sequence[int]) -> None:
        """Add clicks, oldest first, and trim. The very next ``history`` sees them."""

    async def items(self, item_ids: Ids) -> ItemBatch:
        """Records of these items, in one round trip where the backend can."""

    async def put_items(self, item_ids: Ids, rows: ItemRows) -> None:
        """Insert or replace whole records."""

    async def delete_items(self, item_ids: Ids) -> int:
        """Remove records; how many there were."""

    def scan_items(self, batch_size: int = 4096) -> AsyncIterator[ItemBatch]:
        """Every item once, in batches, in no promised order."""

    async def count_items(self) -> int:
        """How many items there are (exact for LMDB; may be an estimate elsewhere)."""

    async def ping(self) -> None:
        """Return if the store answers; raise StoreUnavailable otherwise."""

    async def close(self) -> None: ...
