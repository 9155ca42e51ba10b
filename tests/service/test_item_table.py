"""The table keeps what it is given, once, and says when it is full."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.hash_index import ABSENT
from service.item_table import DerivedItems, ItemTable
from tests.service.world import SMALL


def items(ids: list[int]) -> DerivedItems:
    """Columns that tell whose they are."""
    own = np.array(ids, np.int64)[:, None] % 1000
    return DerivedItems(
        np.broadcast_to(own, (len(ids), SMALL.item_vector_width)).astype(np.float32),
        np.broadcast_to(own + 0.5, (len(ids), SMALL.network_width)).astype(np.float32),
        np.broadcast_to(own, (len(ids), len(SMALL.context))).astype(np.int32),
        own[:, 0] % 2 == 1,
    )


@given(st.lists(st.lists(st.integers(0, 300), max_size=40), max_size=8), st.integers(0, 120))
def test_every_item_it_has_is_the_items_own(batches: list[list[int]], capacity: int) -> None:
    table, offered = ItemTable(SMALL, capacity), set()
    for batch in batches:
        table.insert(np.array(batch, np.int64), items(batch))
        offered |= set(batch)
    assert table.count == min(len(offered), capacity)

    asked = np.arange(301)
    slots = table.find(asked)
    present = asked[slots != ABSENT]
    assert len(present) == table.count
    assert set(present.tolist()) <= offered
    expected, got = items(present.tolist()), table.columns.gather(slots[slots != ABSENT])
    for mine, theirs in zip(got.columns(), expected.columns(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_full_table_takes_no_more_and_counts_what_it_refused() -> None:
    table = ItemTable(SMALL, 3)
    assert table.insert(np.array([1, 2, 2, 1]), items([1, 2, 2, 1])) == 0
    assert table.insert(np.array([2, 3, 4, 5]), items([2, 3, 4, 5])) == 2
    assert (table.count, table.refused) == (3, 2)
    assert (table.find(np.array([1, 2, 3, 4, 5])) != ABSENT).tolist() == [True] * 3 + [False] * 2
