"""Item changes that the change log does not tell of, or not readably, are seen all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_store import connect
from feature_store.contents import Origin
from feature_store.contract import Changes, Ids, ItemRows
from feature_store.errors import StoreRefused, StoreUnavailable
from feature_store.lmdb.change_log import ChangeLog
from service.lifecycle import item_refresh
from service.lifecycle.change_backlog import ChangeBacklog
from service.lifecycle.item_refresh import ItemRefresher
from service.state import ServiceState
from tests.service.in_process import ask, client_of, metric, opened
from tests.service.parity import TOLERANCE
from tests.service.world import World, make_rows, make_world

WITHIN_S = 20.0
NONE = np.empty(0, np.int64)


@pytest.fixture
def small_world(tmp_path: Path) -> World:
    return make_world(tmp_path, items=300, users=3)


@pytest.fixture
async def state(small_world: World) -> AsyncIterator[ServiceState]:
    async with opened(small_world) as state:
        yield state


async def silently(world: World, item: int, monkeypatch: pytest.MonkeyPatch) -> World:
    """An item is put by another process that does not tell the change log; the world after it."""
    row = make_rows(world.schema, 1, np.random.default_rng(item % 1000 + 1))
    store = await connect(world.store, world.schema)
    with monkeypatch.context() as untold:
        untold.setattr(ChangeLog, "add", lambda *arguments: None)
        await store.put_items(np.array([item]), row)
    await store.close()
    rows = world.rows.copy()
    rows[world.ids == item] = row
    return replace(world, rows=rows)


async def score(state: ServiceState, item: int) -> float | None:
    answer = await ask(state, user_id=10**9, candidates=[item])
    found: float | None = answer.json()["scores"][0]
    return found


async def scored_as(state: ServiceState, world: World, item: int) -> None:
    """Until the item's score is that of its record in ``world``."""
    [expected] = world.answer(NONE, np.array([item]))
    async with asyncio.timeout(WITHIN_S):
        while await score(state, item) != pytest.approx(  # noqa: ASYNC110
            expected, abs=TOLERANCE
        ):
            await asyncio.sleep(0.02)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_every_item_is_read_again_within_the_time_set(
    small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(small_world, item_reread_s=1) as state:
        item = int(small_world.ids[7])
        after = await silently(small_world, item, monkeypatch)
        await scored_as(state, after, item)
        await until(lambda: metric(state, "qin_item_rereads_total") >= 1)
        assert metric(state, "qin_item_changes_total") == 0


async def test_an_item_deleted_without_a_word_is_gone_within_the_time_set(
    small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(small_world, item_reread_s=1) as state:
        item = int(small_world.ids[7])
        assert await score(state, item) is not None
        store = await connect(small_world.store, small_world.schema)
        with monkeypatch.context() as untold:
            untold.setattr(ChangeLog, "add", lambda *arguments: None)
            await store.delete_items(np.array([item]))
        await store.close()
        async with asyncio.timeout(WITHIN_S):
            while await score(state, item) is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_what_is_about_to_be_written_is_looked_at_again(
    small_world: World, state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer dies between the write and the second announcement."""
    monkeypatch.setattr(item_refresh, "SETTLES_S", 0.5)
    item = int(small_world.ids[7])
    real, announced = state.store.changes, False

    async def soon(cursor: str | None) -> Changes:
        nonlocal announced
        changes = await real(cursor)
        if announced:
            return changes
        announced = True
        return replace(changes, soon=np.array([item]))

    monkeypatch.setattr(state.store, "changes", soon)
    await until(lambda: announced)
    after = await silently(small_world, item, monkeypatch)
    await scored_as(state, after, item)


@pytest.mark.parametrize("error", [StoreRefused("NOPERM"), StoreUnavailable("late", unknown=True)])
async def test_this_process_does_not_answer_from_what_it_tried_to_change(
    small_world: World, state: ServiceState, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The item is written, and then announcing it fails."""
    item = int(small_world.ids[7])
    before = await score(state, item)
    after = small_world

    async def written_but_untold(
        item_id: int, change: Callable[[ItemRows], None], origin: Origin | None
    ) -> bool:
        nonlocal after
        after = await silently(small_world, item_id, monkeypatch)
        raise error

    monkeypatch.setattr(state.store, "patch_item", written_but_untold)
    async with client_of(state) as client:
        headers = {"Content-Type": "application/json", "Host": "127.0.0.1"}
        answer = await client.patch(
            f"/v1/items/{item}", content=b'{"likes_level": 1}', headers=headers
        )
    assert answer.status_code == 503
    [expected] = after.answer(NONE, np.array([item]))
    now = await score(state, item)
    assert now == pytest.approx(expected, abs=TOLERANCE)
    assert now != before


async def test_a_write_that_failed_is_looked_at_once_more_later(
    small_world: World, state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may still be on its way when it is given up."""
    monkeypatch.setattr(item_refresh, "SETTLES_S", 0.5)
    item = int(small_world.ids[7])
    with pytest.raises(StoreUnavailable):
        async with state.refresher.writing(np.array([item])):
            raise StoreUnavailable("no answer in time", unknown=True)
    await score(state, item)  # the old record is brought back
    after = await silently(small_world, item, monkeypatch)
    await scored_as(state, after, item)


async def test_an_unreadable_entry_is_counted_and_following_goes_on(
    small_world: World, state: ServiceState
) -> None:
    store = await connect(small_world.store, small_world.schema)
    environment = store._env()  # type: ignore[attr-defined]
    last = int((await store.changes(None)).cursor)
    for number in range(1, 4):
        key = (last + number).to_bytes(8, "big")
        environment.write(lambda txn, key=key: txn.put(key, b"noise", db=environment.db["changes"]))
    row = make_rows(small_world.schema, 1, np.random.default_rng(5))
    await store.put_items(small_world.ids[:1], row)
    await store.close()
    await until(lambda: metric(state, "qin_item_changes_unreadable_total") == 3)
    await until(lambda: state.refresher.changed == 1)
    assert metric(state, "qin_item_changes_followed") == 1
    assert metric(state, "qin_item_changes_lost_total") == 0


async def test_a_log_that_cannot_be_read_is_degraded_visibly_and_found_again(
    state: ServiceState, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refused(cursor: str | None) -> Changes:
        error = StoreRefused("WRONGTYPE")
        error.of_one_key = True
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(state.store, "changes", refused)
        await until(lambda: metric(state, "qin_item_changes_followed") == 0)
        errors = {"operation": "changes", "error": "StoreRefused"}
        assert metric(state, "qin_store_errors_total", **errors) >= 1
        assert metric(state, "qin_store_reachable") == 1  # histories are
    await until(lambda: metric(state, "qin_item_changes_followed") == 1)


async def test_a_part_of_the_log_that_fails_again_and_again_is_passed_over(
    small_world: World, state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if its changes were lost: every item is read again, and following goes on."""
    monkeypatch.setattr(item_refresh, "UNFOLLOWED_S", 0.05)
    item = int(small_world.ids[7])
    real, broken = state.store.changes, True

    async def odd(cursor: str | None) -> Any:
        if cursor is None or not broken:
            return await real(cursor)
        return replace(await real(cursor), soon=5)

    monkeypatch.setattr(state.store, "changes", odd)
    after = await silently(small_world, item, monkeypatch)
    await until(lambda: metric(state, "qin_item_changes_lost_total") >= 1)
    broken = False
    await scored_as(state, after, item)
    await until(lambda: metric(state, "qin_item_changes_followed") == 1)


def test_an_announcement_is_settled_by_its_confirmation() -> None:
    backlog = ChangeBacklog()
    some: Ids = np.array([1, 2, 3])
    backlog.announce(some, due=10.0)
    backlog.announce(some[:1], due=11.0)  # by another writer
    backlog.confirm(np.array([1, 2, 9]))
    assert backlog.overdue(9.9).tolist() == []
    assert backlog.overdue(10.0).tolist() == [1, 3]
    assert backlog.overdue(11.0).tolist() == [1]
    assert not backlog.due
    assert not backlog.open


def test_what_is_kept_of_announcements_is_bounded_by_what_is_due() -> None:
    """Announcements that never pause: of those that are over nothing is kept, told of or not."""
    backlog = ChangeBacklog()
    for now in range(100):
        backlog.announce(np.array([now, 1000]), due=now + 2.0)
        backlog.confirm(np.array([now]) if now % 2 else np.array([1000]))
        backlog.overdue(float(now))
    assert len(backlog.due) == 2
    assert set(backlog.open) <= {98, 99, 1000}


async def test_without_a_time_nothing_is_read_again(small_world: World) -> None:
    async with opened(small_world, item_reread_s=0) as state:
        assert isinstance(state.refresher, ItemRefresher)
        assert len(state.refresher._tasks) == 2
