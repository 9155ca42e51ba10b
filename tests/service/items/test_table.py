"""The table keeps what it is given, makes room when told to, and shows nobody another's rows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.testing import assert_array_equal

from feature_store.contract import Ids
from feature_store.schema import FeatureSchema
from service.items import hash_index
from service.items import table as item_table
from service.items.hash_index import ABSENT, BUCKET, HashIndex
from service.items.invalidation import try_remove
from service.items.table import ItemTable, StaleSlots, TableBusy
from service.items.table_layout import bytes_per_item, size_of
from tests.service.colliding import colliding
from tests.service.items.shared_tables import MOST_ID, array, assert_same, items
from tests.service.small_schema import SMALL


@given(st.lists(st.lists(st.integers(0, 300), max_size=40), max_size=8), st.integers(0, 120))
def test_every_item_it_has_is_the_items_own(batches: list[list[int]], capacity: int) -> None:
    table, offered = ItemTable(SMALL, capacity), set()
    for batch in batches:
        table.insert(array(batch), items(batch))
        offered |= set(batch)
    assert table.count == min(len(offered), capacity)

    asked = np.arange(MOST_ID + 1)
    slots = table.find(asked)
    present = asked[slots != ABSENT]
    assert len(present) == table.count
    assert set(present.tolist()) <= offered
    assert_same(table.columns.gather(slots[slots != ABSENT]), items(present.tolist()))


def test_a_full_table_takes_no_more_and_counts_what_it_refused() -> None:
    table = ItemTable(SMALL, 3)
    assert table.insert(array([1, 2, 2, 1]), items([1, 2, 2, 1])) == 0
    assert table.insert(array([2, 3, 4, 5]), items([2, 3, 4, 5])) == 2
    assert (table.count, table.refused) == (3, 2)
    assert (table.find(array([1, 2, 3, 4, 5])) != ABSENT).tolist() == [True] * 3 + [False] * 2


def test_an_item_is_removed_without_waiting_unless_a_writer_is_in_the_table() -> None:
    table, one = ItemTable(SMALL, 3), array([1])
    table.insert(array([1, 2]), items([1, 2]))
    with table._writing():
        assert not try_remove(table, one)
    with table._lock.held(0):
        assert not try_remove(table, one)
    epoch = table.epoch
    assert try_remove(table, one)
    assert (table.find(array([1, 2])) != ABSENT).tolist() == [False, True]
    assert table.insert(one, items([1]), epoch=epoch) == 0  # of a record from before
    assert table.find(one) == ABSENT
    assert try_remove(table, array([3]))  # unknown
    assert table.count == 1


class Life(RuleBasedStateMachine):
    """Any sequence of what services do to a table, beside what a dict would hold."""

    some = st.lists(st.integers(0, MOST_ID), max_size=30, unique=True)

    def __init__(self) -> None:
        super().__init__()
        self.newest: dict[int, int] = {}  # id -> the change its rows must be of
        self.change = 0

    @initialize(seed=st.integers(0, 2**32))
    def make(self, seed: int) -> None:
        """With multipliers that are the same when an example is run again."""
        with patch.object(hash_index.secrets, "randbits", Random(seed).getrandbits):
            self.table = ItemTable(SMALL, 50)

    @rule(ids=some, evict=st.booleans())
    def put(self, ids: list[int], evict: bool) -> None:
        self.change += 1
        index, asked = self.table.memory.index(), array(ids)
        full = index.places(np.unique(asked)) == ABSENT  # both buckets
        put = items(ids, self.change)
        refused = self.table.insert(asked, put, replace=True, evict=evict)
        held = self.table.find(asked) != ABSENT
        assert refused == (~held).sum()
        if evict:
            assert refused == full.sum()
        self.newest |= {item: self.change for item, is_in in zip(ids, held, strict=True) if is_in}

    @rule(ids=some)
    def remove(self, ids: list[int]) -> None:
        self.table.remove(array(ids))
        assert (self.table.find(array(ids)) == ABSENT).all()

    @rule(ids=some, news=some)
    def fetched_before_a_change(self, ids: list[int], news: list[int]) -> None:
        epoch = self.table.epoch
        before = self.table.find(array(ids)) != ABSENT
        self.table.remove(array(news))
        self.change += 1
        self.table.insert(array(ids), items(ids, self.change), evict=True, epoch=epoch)
        assert (self.table.find(array(news)) == ABSENT).all()
        for item, was_in in zip(ids, before, strict=True):
            if item not in news and not was_in:
                self.newest[item] = self.change

    @invariant()
    def what_is_found_is_the_items_newest_rows(self) -> None:
        asked = np.arange(MOST_ID + 1)
        slots, generations, missed = self.table.look_up(asked)
        assert missed.tolist() == np.flatnonzero(slots == ABSENT).tolist()
        present = np.flatnonzero(slots != ABSENT)
        assert self.table.count == len(present) <= 50
        assert sorted(self.table.ids().tolist()) == present.tolist()
        rows = self.table.take(slots[present], generations[present])
        assert self.table.lacking == rows.lacks.sum()
        known = present.tolist()
        assert_same(rows, items(known, [self.newest[item] for item in known]))


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_ids_that_find_no_place_are_refused_and_make_no_room() -> None:
    """Aimed at the table's own multipliers: whatever is asked for, the others stay."""
    table, others = ItemTable(SMALL, 500), list(range(500))
    table.insert(array(others), items(others))
    index = table.memory.index()
    aimed = colliding(index.first, index.second, HashIndex.buckets(500), 2000)
    for _ in range(3):
        refused = table.insert(aimed, items(aimed.tolist()), evict=True)
        assert refused >= 2000 - 2 * BUCKET
    assert table.evicted <= 2 * BUCKET
    assert table.refused >= 3 * (2000 - 2 * BUCKET)
    slots, generations, missed = table.look_up(aimed)
    assert len(missed) >= 2000 - 2 * BUCKET
    kept = slots != ABSENT
    assert_same(table.take(slots[kept], generations[kept]), items(aimed[kept].tolist()))
    assert (table.find(array(others)) != ABSENT).sum() >= 500 - 2 * BUCKET


def test_readers_wait_for_the_writer_where_stores_are_seen_out_of_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(item_table, "STORES_IN_ORDER", False)
    table = ItemTable(SMALL, 10)
    table.insert(array([1]), items([1]))
    slots, generations, _ = table.look_up(array([1]))
    assert_same(table.take(slots, generations), items([1]))
    reads: list[Callable[[], object]] = [
        lambda: table.look_up(array([1])),
        lambda: table.take(slots, generations),
    ]
    for read in reads:
        reader = threading.Thread(target=read)
        with table._lock.held(1.0):
            reader.start()
            reader.join(0.05)
            assert reader.is_alive()
        reader.join(10)
        assert not reader.is_alive()


def test_a_lock_is_waited_for_no_longer_than_said() -> None:
    table = ItemTable(SMALL, 10)
    with table._lock.held(1.0):
        for change in (
            lambda: table.remove(array([1]), within=0.01),
            lambda: table.insert(array([1]), items([1]), within=0.01),
        ):
            with pytest.raises(TableBusy):
                change()
        table.keep(array([1, 2]), items([1, 2]), table.epoch)
    assert (table.not_kept, table.count) == (2, 0)
    table.keep(array([1, 2]), items([1, 2]), table.epoch)
    assert (table.not_kept, table.count) == (2, 2)


def test_the_hand_spares_what_was_looked_up() -> None:
    table, popular = ItemTable(SMALL, 100), list(range(20))
    table.insert(array(popular), items(popular), evict=True)
    for start in range(100, 1100, 10):
        table.look_up(array(popular))
        rare = list(range(start, start + 10))
        table.insert(array(rare), items(rare), evict=True)
        assert table.count <= 100
    assert (table.find(array(popular)) != ABSENT).all()
    assert table.evicted == 1020 - 100


def test_ids_that_share_their_hints_are_found_marked_and_stamped_like_all_others() -> None:
    capacity, random = 1024, np.random.default_rng(4)
    table, known = ItemTable(SMALL, capacity), random.integers(0, 2**63 - 1, capacity)
    table.insert(known, items(known.tolist()))
    table.insert(known[:100], items(known[:100].tolist(), 1), replace=True, evict=True)
    ways = set()
    for _ in range(20):
        asked = random.choice(known, 300, replace=False)
        first = table._index.first_choice(asked)
        second = table._index.second_choice(asked)
        table.memory.referenced[:] = 0
        slots, generations, missed = table.look_up(asked)
        found = slots != ABSENT
        ways |= set(zip((first == slots)[found], (second == slots)[found], strict=True))
        assert_array_equal(missed, np.flatnonzero(~found))
        assert_array_equal(table.memory.ids[slots[found]], asked[found])
        assert_array_equal(table.memory.generations[slots[found]], generations[found])
        assert_array_equal(np.flatnonzero(table.memory.referenced), np.sort(slots[found]))
    assert {(True, False), (False, True), (False, False)} <= ways


def test_rows_taken_away_after_the_look_up_are_noticed() -> None:
    table = ItemTable(SMALL, 4)
    table.insert(array([1, 2, 3]), items([1, 2, 3]))
    slots, generations, _ = table.look_up(array([1, 2, 3]))
    table.remove(array([2]))
    assert_same(table.take(slots, generations), items([1, 2, 3]))  # freed, not written anew yet
    table.insert(array([5, 6]), items([5, 6]))
    with pytest.raises(StaleSlots):
        table.take(slots, generations)


def test_an_item_half_written_into_the_last_slot_is_not_there_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its slot has its id, and the index does not lead there: -1 would read just that slot."""
    table, seen = ItemTable(SMALL, 2), list[list[int]]()
    link = table._link

    def looked_up_before(slots: Ids, ids: Ids, cells: Ids) -> None:
        found, _, missed = table.look_up(ids)
        seen.extend((found.tolist(), missed.tolist()))
        link(slots, ids, cells)

    table.insert(array([1]), items([1]))
    monkeypatch.setattr(table, "_link", looked_up_before)
    table.insert(array([2]), items([2]))
    assert table.find(array([2])).tolist() == [1]
    assert seen == [[ABSENT], [0]]


def test_a_change_leaves_the_old_rows_to_requests_under_way() -> None:
    table = ItemTable(SMALL, 100)
    table.insert(array([1, 2]), items([1, 2]))
    slots, generations, _ = table.look_up(array([1, 2]))
    table.insert(array([1]), items([1], 7), replace=True)
    assert_same(table.take(slots, generations), items([1, 2]))
    assert_same(table.columns.gather(table.find(array([1]))), items([1], 7))


def test_readers_beside_a_writer_never_see_another_items_rows() -> None:
    """A table that is far too small, so that slots change hands all the time."""
    table, stop = ItemTable(SMALL, 64), threading.Event()
    random = np.random.default_rng(0)
    checked = moved = 0

    def write() -> None:
        source = np.random.default_rng(1)
        while not stop.is_set():
            some = source.integers(0, MOST_ID, 8).tolist()
            table.insert(array(some), items(some), evict=True)
            table.remove(array(source.integers(0, MOST_ID, 1).tolist()))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while checked < 20_000 or not moved:
            asked = random.integers(0, MOST_ID, 32)
            slots, generations, missed = table.look_up(asked)
            there = slots != ABSENT
            assert missed.tolist() == np.flatnonzero(~there).tolist()
            try:
                rows = table.take(slots[there], generations[there])
            except StaleSlots:
                moved += 1
                continue
            assert_same(rows, items(asked[there].tolist()))
            checked += int(there.sum())
    finally:
        stop.set()
        writer.join()


def test_a_writer_that_died_half_way_leaves_a_table_that_mends_itself() -> None:
    class Died(BaseException):
        pass

    table = ItemTable(SMALL, 10)
    table.insert(array([1, 2, 3]), items([1, 2, 3]))
    fill = table._index.fill

    def dying(cells: Ids, ids: Ids, slots: Ids) -> None:
        raise Died

    table._index.fill = dying  # type: ignore[method-assign]
    with pytest.raises(Died):
        table.insert(array([4, 5]), items([4, 5]))
    table._index.fill = fill  # type: ignore[method-assign]
    more = list(range(20, 30))
    assert table.insert(array(more), items(more)) == 3  # the slots of 4 and 5 are free again
    assert table.count == 10
    assert table.lacking == table.take(*table.look_up(table.ids())[:2]).lacks.sum()
    assert (table.find(array([1, 2, 3, 4, 5])) != ABSENT).tolist() == [True] * 3 + [False] * 2


def test_the_bytes_of_an_item_are_those_documented() -> None:
    """docs/configuration.md, at the paper's sizes."""
    assert bytes_per_item(FeatureSchema.microlens()) == 5_659
    assert (
        "(5,659 at the paper's sizes"
        in (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
    )
    capacity = 1 << 20  # the index is largest, for what it holds, just beyond a power of two
    per_item = size_of(FeatureSchema.microlens(), capacity) / capacity
    assert per_item - 5_659 == pytest.approx(48, abs=0.1)
    per_item = size_of(FeatureSchema.microlens(), capacity + 1) / (capacity + 1)
    assert per_item - 5_659 == pytest.approx(96, abs=0.1)
