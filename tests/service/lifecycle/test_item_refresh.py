"""Tables follow the store's change log, and survive its loss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from feature_store import connect
from feature_store.contract import Changes, Ids
from service.items.hash_index import ABSENT
from service.items.table import ItemTable
from service.lifecycle import item_refresh
from service.state import ServiceState
from tests.service.in_process import ask, metric, opened
from tests.service.parity import TOLERANCE
from tests.service.world import World, make_rows, make_world


@pytest.fixture
def small_world(tmp_path: Path) -> World:
    return make_world(tmp_path, items=700, users=3)


@pytest.fixture
async def state(small_world: World) -> AsyncIterator[ServiceState]:
    async with opened(small_world) as state:
        yield state


def table(state: ServiceState) -> ItemTable:
    assert state.registry.active is not None
    return state.registry.active.table


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def elsewhere(world: World, ids: Ids, gone: Ids) -> None:
    """Another process puts and deletes items."""
    rows = make_rows(world.schema, len(ids), np.random.default_rng(1))
    store = await connect(world.store, world.schema)
    await store.put_items(ids, rows)
    await store.delete_items(gone)
    await store.close()
    for item, row in zip(ids.tolist(), rows, strict=True):
        world.rows[world.ids == item] = row


async def scores(state: ServiceState, ids: Ids) -> list[float | None]:
    answer = await ask(state, user_id=10**9, candidates=ids.tolist())
    found: list[float | None] = answer.json()["scores"]
    return found


async def test_what_changed_elsewhere_is_brought_back_before_anybody_asks(
    small_world: World, state: ServiceState
) -> None:
    put, gone = small_world.ids[:300], small_world.ids[300:310]
    await elsewhere(small_world, put, gone)
    await until(lambda: state.refresher.changed == 310)
    assert (table(state).find(gone) == ABSENT).all()
    await until(lambda: (table(state).find(put) != ABSENT).all())
    expected = small_world.answer(np.empty(0, np.int64), put)
    assert await scores(state, put) == pytest.approx(expected, abs=TOLERANCE)
    assert metric(state, "qin_item_table_lookups_total", result="miss") == 0
    assert metric(state, "qin_item_changes_total") == 310


async def test_lost_changes_are_made_good_by_reading_every_item(
    small_world: World, state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the old rows answer."""
    put, gone = small_world.ids[:300], small_world.ids[300:310]
    real, hidden = state.store.changes, True

    async def forgetful(cursor: str | None) -> Changes:
        changes = await real(cursor)
        return (
            Changes(cursor or changes.cursor, np.empty(0, np.int64), lost=False)
            if hidden
            else (
                Changes(
                    (await real(None)).cursor, np.empty(0, np.int64), lost=not state.refresher.lost
                )
            )
        )

    monkeypatch.setattr(state.store, "changes", forgetful)
    await asyncio.sleep(2 * item_refresh.EVERY_S)
    await elsewhere(small_world, put, gone)
    old = await scores(state, gone)
    assert None not in old
    hidden = False
    async with asyncio.timeout(20):
        while (table(state).find(gone) != ABSENT).any():
            assert None not in await scores(state, small_world.ids[310:400])
            await asyncio.sleep(0.01)
    assert metric(state, "qin_item_changes_lost_total") == 1
    expected = small_world.answer(np.empty(0, np.int64), put)
    assert await scores(state, put) == pytest.approx(expected, abs=TOLERANCE)
    assert table(state).count == 690


async def test_a_table_without_room_for_all_still_tells_the_truth(small_world: World) -> None:
    async with opened(small_world, max_table_items=100) as state:
        put = small_world.ids[:300]
        await elsewhere(small_world, put, small_world.ids[300:310])
        await until(lambda: state.refresher.changed == 310)
        expected = small_world.answer(np.empty(0, np.int64), put)
        assert await scores(state, put) == pytest.approx(expected, abs=TOLERANCE)
        assert await scores(state, small_world.ids[300:310]) == [None] * 10
        assert table(state).count <= 100


async def test_an_item_that_came_with_lost_changes_is_no_longer_unknown(
    small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the table has no room to bring it back."""
    async with opened(small_world, max_table_items=100) as state:
        new = np.array([10**12])
        assert await scores(state, new) == [None]
        real, lost = state.store.changes, False

        async def forgetful(cursor: str | None) -> Changes:
            nonlocal lost
            end = (await real(None)).cursor
            told, lost = lost, False
            return Changes(end, np.empty(0, np.int64), lost=told)

        monkeypatch.setattr(state.store, "changes", forgetful)
        await asyncio.sleep(2 * item_refresh.EVERY_S)
        await elsewhere(small_world, new, new[:0])
        lost = True
        async with asyncio.timeout(20):
            while await scores(state, new) == [None]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
