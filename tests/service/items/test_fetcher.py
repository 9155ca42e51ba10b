"""Items missed at the same time are fetched once; what there is not, is asked for once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_store.contract import Ids, ItemBatch
from service.items import negative_cache
from service.items.hash_index import BUCKET
from service.state import ServiceState
from tests.service.cancellations import Truth, provoke
from tests.service.colliding import colliding
from tests.service.in_process import ask, client_of, metric, opened
from tests.service.parity import TOLERANCE
from tests.service.world import World, make_rows, make_world

NEW = np.arange(10**12, 10**12 + 6)


@pytest.fixture
def small_world(tmp_path: Path) -> World:
    return make_world(tmp_path, items=40, users=3)


@pytest.fixture
async def state(small_world: World) -> AsyncIterator[ServiceState]:
    """With items that are in the store and not in the table."""
    async with opened(small_world) as state:
        rows = make_rows(small_world.schema, len(NEW), np.random.default_rng(0))
        await state.refresher.close()  # only requests ask
        await state.store.put_items(NEW, rows)
        yield state


class Slow:
    """A store whose items take a while, and which notes what it was asked for."""

    def __init__(self, state: ServiceState, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[list[int]] = []
        self.go = asyncio.Event()
        self._more = asyncio.Event()
        self._items = state.store.items
        monkeypatch.setattr(state.store, "items", self.items)

    async def items(self, ids: Ids) -> ItemBatch:
        self.asked.append(ids.tolist())
        self._more.set()
        await self.go.wait()
        return await self._items(ids)

    async def asked_times(self, count: int) -> None:
        while len(self.asked) < count:
            self._more.clear()
            await self._more.wait()
        await asyncio.sleep(0.01)  # and whoever else is on the way has come so far


@pytest.fixture
def slow(state: ServiceState, monkeypatch: pytest.MonkeyPatch) -> Slow:
    return Slow(state, monkeypatch)


async def test_requests_that_miss_the_same_items_share_one_fetch(
    state: ServiceState, slow: Slow
) -> None:
    bodies = [{"candidates": NEW[:4].tolist()}, {"candidates": NEW[2:].tolist()}]
    bodies += [{"candidates": NEW[1:3].tolist()}]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(state, user_id=1, **body)) for body in bodies]
        await slow.asked_times(2)
        slow.go.set()
    assert slow.asked == [NEW[:4].tolist(), NEW[4:].tolist()]
    together = [task.result().json() for task in tasks]
    alone = [(await ask(state, user_id=1, **body)).json() for body in bodies]
    for mine, expected in zip(together, alone, strict=True):
        assert mine["unknown_items"] == []
        assert mine["scores"] == pytest.approx(expected["scores"], abs=TOLERANCE)
    assert len(slow.asked) == 2


async def test_a_fetch_outlives_the_request_that_began_it(state: ServiceState, slow: Slow) -> None:
    first = asyncio.create_task(ask(state, user_id=1, candidates=NEW.tolist()))
    await slow.asked_times(1)
    second = asyncio.create_task(ask(state, user_id=1, candidates=NEW.tolist()))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    slow.go.set()
    assert (await second).json()["unknown_items"] == []
    assert len(slow.asked) == 1


async def test_waiting_for_a_fetch_ends_with_the_deadline(state: ServiceState, slow: Slow) -> None:
    async with client_of(state) as client:
        answer = await client.post(
            "/v1/score",
            json={"user_id": 1, "candidates": NEW.tolist()},
            headers={"X-Deadline-Ms": "20"},
        )
    assert answer.status_code == 504
    slow.go.set()
    assert (await ask(state, user_id=1, candidates=NEW.tolist())).status_code == 200
    assert len(slow.asked) == 1


async def test_what_the_store_does_not_know_is_asked_for_once_until_it_changes(
    small_world: World, state: ServiceState
) -> None:
    def asked() -> float:
        return metric(state, "qin_store_duration_seconds_count", operation="items")

    unknown = 10**15
    for _ in range(3):
        assert (await ask(state, user_id=1, candidates=[unknown])).json()["unknown_items"]
    before = asked()
    assert (await ask(state, user_id=1, candidates=[unknown])).json()["unknown_items"]
    assert asked() == before
    async with client_of(state) as client:
        values = (await client.get(f"/v1/items/{NEW[0]}")).json()
        await client.put(f"/v1/items/{unknown}", json=values)
    assert (await ask(state, user_id=1, candidates=[unknown])).json()["unknown_items"] == []


async def test_no_more_than_a_bounded_number_is_remembered_as_unknown(
    state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negative_cache, "CAPACITY", 100)
    for start in range(0, 1000, 250):
        unknown = [10**15 + start + n for n in range(250)]
        assert len((await ask(state, user_id=1, candidates=unknown)).json()["unknown_items"]) == 250
    assert state.registry.active is not None
    assert len(state.registry.active.fetcher._negative) == 100


async def test_an_item_that_changes_while_it_is_fetched_is_fetched_again(
    state: ServiceState, slow: Slow
) -> None:
    """Or the old record would stay in the table after the news of a newer one."""
    item = int(NEW[0])
    began, read = asyncio.Event(), slow._items

    async def reads_then_waits(ids: Ids) -> ItemBatch:
        batch = await read(ids)
        if not began.is_set():
            began.set()
            await slow.go.wait()
        return batch

    state.store.items = reads_then_waits  # type: ignore[method-assign]
    first = asyncio.create_task(ask(state, user_id=1, candidates=[item], history=[]))
    await began.wait()
    async with client_of(state) as client:
        changed = {"content": [0.9, -0.9, 0.5, 0.5, 2.0, 1.0], "likes_level": 1}
        assert (await client.patch(f"/v1/items/{item}", json=changed)).status_code == 204
        during = await ask(state, user_id=1, candidates=[item], history=[])
        slow.go.set()
        old = await first
        after = await ask(state, user_id=1, candidates=[item], history=[])
    assert during.json()["scores"] == after.json()["scores"] != old.json()["scores"]


async def test_items_without_a_place_in_the_table_are_fetched_each_time_and_counted(
    state: ServiceState,
) -> None:
    """Their ids are aimed at the table's own multipliers."""
    assert state.registry.active is not None
    memory = state.registry.active.table.memory
    index = memory.index()
    aimed = colliding(index.first, index.second, len(memory.keys), 60)
    rows = make_rows(state.store.schema, len(aimed), np.random.default_rng(5))
    await state.store.put_items(aimed, rows)
    answers = [
        (await ask(state, user_id=1, candidates=aimed.tolist(), history=[])).json()
        for _ in range(3)
    ]
    assert answers[0]["unknown_items"] == []
    assert None not in answers[0]["scores"]
    for answer in answers[1:]:
        assert answer["scores"] == pytest.approx(answers[0]["scores"], abs=TOLERANCE)
    assert metric(state, "qin_item_table_refused_total") >= 3 * (60 - 2 * BUCKET)
    assert metric(state, "qin_item_table_lookups_total", result="miss") >= 3 * (60 - 2 * BUCKET)


async def test_cancelled_requests_leave_nobody_with_somebody_elses_answer(
    small_world: World,
) -> None:
    """A short run of ``python -m tests.service.cancellations``, which says what it is about."""
    async with (
        opened(small_world, max_table_items=30, deadline_ms=10_000) as state,
        client_of(state) as client,
    ):

        async def ask(body: dict[str, Any]) -> tuple[int, Any]:
            answer = await client.post("/v1/score", json=body)
            return answer.status_code, answer.json()

        ended = await provoke([ask] * 16, Truth.of(small_world), 1000)
        assert ended["cancelled"] > 100
        assert ended["right"] == 1000 - ended["cancelled"]
        assert metric(state, "qin_item_table_evicted_total") > 500
