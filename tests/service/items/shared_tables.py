"""Tables and rows for tests of the item table and for the processes that they start.

Imports no test and no network, so that such a process starts at once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import Ids
from service.items.shared_file import TableFile
from service.items.table import ItemTable
from service.items.table_layout import DerivedItems
from tests.service.small_schema import SMALL

MOST_ID = 300
ROOM = 64
ITEMS = 60  # of ``news``


def items(ids: list[int], of_change: int | list[int] = 0) -> DerivedItems:
    """Columns that tell whose they are, and since which change."""
    changes = np.broadcast_to(np.array(of_change, np.int64), len(ids))
    own = (np.array(ids, np.int64) % 1000 + 1000 * changes)[:, None]
    return DerivedItems(
        np.broadcast_to(own, (len(ids), SMALL.item_vector_width)).astype(np.float32),
        np.broadcast_to(own + 0.5, (len(ids), SMALL.network_width)).astype(np.float32),
        np.broadcast_to(own, (len(ids), len(SMALL.context))).astype(np.int32),
        own[:, 0] % 2 == 1,
        own[:, 0] % 3 == 1,
    )


def array(ids: list[int]) -> Ids:
    return np.array(ids, np.int64)


def assert_same(got: DerivedItems, expected: DerivedItems) -> None:
    for mine, theirs in zip(got.columns(), expected.columns(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def joined(path: Path, room: int = ROOM) -> ItemTable:
    file = TableFile(path, SMALL, room)
    return ItemTable(SMALL, file.capacity, file.memory, file)


def news(path: Path) -> NDArray[np.int64]:
    """(2, ITEMS): the change that each item's record is of, and the latest one confirmed."""
    return np.memmap(path.with_suffix(".news"), np.int64, "r+", shape=(2, ITEMS))
