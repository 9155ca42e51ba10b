"""What processes that share an item table know of each other's changes, and of a stopped one.

Two services in this process stand for two processes: all they share is the table's file.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from feature_store import connect
from feature_store.contract import Changes, Ids, ItemBatch
from model_export.build import build
from service.items.hash_index import ABSENT
from service.items.table import ItemTable
from service.lifecycle import item_refresh
from service.lifecycle.load_steps import LoadSteps
from service.state import ServiceState
from tests.service.in_process import ask, client_of, metric, opened
from tests.service.lifecycle.test_item_refresh import until
from tests.service.measure_stale import measure
from tests.service.process import serving
from tests.service.processes.test_workers import WORKERS, ready_lines, wait_until
from tests.service.world import World, make_world

UNKNOWN = 10**15
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def small_world(tmp_path: Path) -> World:
    return make_world(tmp_path, items=60, users=3)


@pytest.fixture
async def services(
    small_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[ServiceState, ServiceState]]:
    """Whose news of each other come by the table alone: neither follows the change log."""
    # A busy machine is no stopped process.
    monkeypatch.setattr(item_refresh, "CONFIRM_WITHIN_S", 60.0)
    shared = {"table_folder": tmp_path / "tables"}
    async with opened(small_world, **shared) as one, opened(small_world, **shared) as other:
        for state in (one, other):
            for task in state.refresher._tasks:
                task.cancel()
            await asyncio.gather(*state.refresher._tasks, return_exceptions=True)
        yield one, other


def table(state: ServiceState) -> ItemTable:
    assert state.registry.active is not None
    return state.registry.active.table


async def patch(state: ServiceState, item: int, level: int) -> httpx.Response:
    async with client_of(state) as client:
        url, content = f"/v1/items/{item}", b'{"likes_level": %d}' % level
        return await client.patch(url, content=content, headers=JSON)


async def put(state: ServiceState, item: int, like: int) -> None:
    async with client_of(state) as client:
        values = (await client.get(f"/v1/items/{like}")).json()
        answer = await client.put(f"/v1/items/{item}", json=values)
        assert answer.status_code == 204


async def score(state: ServiceState, item: int, **more: Any) -> float | None:
    answer = await ask(state, user_id=1, candidates=[item], history=[], **more)
    assert answer.status_code == 200, answer.text
    found: float | None = answer.json()["scores"][0]
    return found


async def at_level(state: ServiceState, item: int, level: int) -> float | None:
    return await score(state, item, context={"likes_level": [level]})


class ReadsThenWaits:
    """A store whose first answer of items is late: read before what happens meanwhile."""

    def __init__(self, state: ServiceState, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_read, self.go = asyncio.Event(), asyncio.Event()
        self._read = state.store.items
        monkeypatch.setattr(state.store, "items", self.items)

    async def items(self, ids: Ids) -> ItemBatch:
        batch = await self._read(ids)
        if not self.has_read.is_set():
            self.has_read.set()
            await self.go.wait()
        return batch


async def test_what_was_read_before_anothers_change_is_not_kept_after_it(
    services: tuple[ServiceState, ServiceState], small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = services
    item = int(small_world.ids[0])
    old, new = await at_level(one, item, 1), await at_level(one, item, 9)
    assert (await patch(one, item, 1)).status_code == 204  # so that it is fetched
    late = ReadsThenWaits(other, monkeypatch)
    first = asyncio.create_task(score(other, item))
    await late.has_read.wait()
    assert (await patch(one, item, 9)).status_code == 204
    late.go.set()
    assert await first == old  # it was asked before
    assert (table(other).find(np.array([item])) == ABSENT).all()
    assert [await score(state, item) for state in services] == [new, new]


async def test_a_request_after_anothers_change_does_not_wait_for_an_older_fetch(
    services: tuple[ServiceState, ServiceState], small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = services
    item = int(small_world.ids[0])
    new = await at_level(one, item, 9)
    assert (await patch(one, item, 1)).status_code == 204
    late = ReadsThenWaits(other, monkeypatch)
    first = asyncio.create_task(score(other, item))
    await late.has_read.wait()
    assert (await patch(one, item, 9)).status_code == 204
    assert await score(other, item) == new  # while the first one still waits
    late.go.set()
    await first


async def test_an_item_known_to_be_missing_is_found_once_another_process_has_put_it(
    services: tuple[ServiceState, ServiceState], small_world: World
) -> None:
    one, other = services
    like = int(small_world.ids[1])
    assert [await score(state, UNKNOWN) for state in services] == [None, None]
    await put(one, UNKNOWN, like)
    assert await score(other, UNKNOWN) == await score(one, UNKNOWN) != None  # noqa: E711
    async with client_of(one) as client:
        assert (await client.delete(f"/v1/items/{UNKNOWN}")).status_code == 204
    assert [await score(state, UNKNOWN) for state in services] == [None, None]


async def test_what_is_read_again_after_lost_changes_does_not_undo_anothers_change(
    services: tuple[ServiceState, ServiceState], small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old rows are replaced then, not only added to."""
    one, other = services
    item = int(small_world.ids[0])
    new = await at_level(one, item, 9)
    scan = other.store.scan_items

    async def changed_meanwhile(batch_size: int = 4096) -> AsyncIterator[ItemBatch]:
        async for batch in scan(batch_size):
            assert (await patch(one, item, 9)).status_code == 204
            yield batch

    assert (await patch(one, item, 1)).status_code == 204
    monkeypatch.setattr(other.store, "scan_items", changed_meanwhile)
    assert other.registry.active is not None
    await other.refresher._reader.read_all(other.registry.active)
    assert [await score(state, item) for state in services] == [new, new]


@pytest.mark.parametrize("shared", [True, False])
async def test_a_version_that_is_being_loaded_learns_of_what_is_written_meanwhile(
    small_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """By another process while it is warmed up, and by this one after its last look at the log."""
    monkeypatch.setattr(item_refresh, "EVERY_S", 3600.0)
    elsewhere, here = small_world.ids[:2].tolist()
    more = {"table_folder": tmp_path / "tables"} if shared else {}
    async with opened(small_world, **more) as state:
        expected = [await at_level(state, item, 9) for item in (elsewhere, here)]
        build(small_world.network, small_world.models, version="small-2")
        loop, warm, changes = asyncio.get_running_loop(), LoadSteps._warm, state.store.changes

        async def change_elsewhere() -> None:
            store = await connect(small_world.store, small_world.schema)
            await store.patch_item(elsewhere, lambda row: row["likes_level"].fill(9))
            await store.close()

        def changed_while_warmed_up(*arguments: Any) -> None:
            asyncio.run_coroutine_threadsafe(change_elsewhere(), loop).result()
            warm(*arguments)

        async def changed_after_the_look(cursor: str | None) -> Changes:
            found = await changes(cursor)
            if cursor is not None and not len(found.ids):
                assert (await patch(state, here, 9)).status_code == 204
            return found

        monkeypatch.setattr(LoadSteps, "_warm", changed_while_warmed_up)
        monkeypatch.setattr(state.store, "changes", changed_after_the_look)
        await state.manager.activate("small-2")
        assert state.registry.active is not None
        assert state.registry.active.name == "small-2"
        assert not state.registry.loading
        found = [await score(state, item) for item in (elsewhere, here)]
        assert found == [pytest.approx(one, abs=1e-6) for one in expected]


@contextmanager
def locked(state: ServiceState) -> Iterator[None]:
    """As by another process that writes to the table and does not go on."""
    [path] = state.settings.table_folder.glob("*.write")  # type: ignore[union-attr]
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


async def test_while_the_lock_is_not_to_be_had_requests_are_answered_and_writes_are_503(
    services: tuple[ServiceState, ServiceState], small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the event loop goes on; afterwards the change is seen without being repeated."""
    one, _ = services
    item, fetched = int(small_world.ids[0]), int(small_world.ids[1])
    new = await at_level(one, item, 9)
    assert (await patch(one, item, 1)).status_code == 204
    assert (await patch(one, fetched, 1)).status_code == 204  # so that it is not in the table
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0.01)

    beating = asyncio.create_task(beat())
    with locked(one):
        before = [await score(state, fetched) for state in services]
        assert before[0] == before[1] is not None
        beats = 0
        monkeypatch.setattr(item_refresh, "CONFIRM_WITHIN_S", 0.5)
        answer = await patch(one, item, 9)
        assert beats > 5  # a loop that waits for the lock does not beat
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:qin:problem:not-confirmed"
        assert answer.headers["Retry-After"] == "1"
        assert metric(one, "qin_item_table_not_kept_total") >= 1
    beating.cancel()
    await until(lambda: not one.refresher._invalidation._removals)
    assert [await score(state, item) for state in services] == [new, new]
    monkeypatch.setattr(item_refresh, "CONFIRM_WITHIN_S", 60.0)
    assert (await patch(one, item, 9)).status_code == 204


async def test_the_log_is_not_followed_past_a_change_that_is_not_removed_yet(
    small_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_refresh, "LOOK_WITHIN_S", 0.2)
    shared = {"table_folder": tmp_path / "tables"}
    async with opened(small_world, **shared) as state:
        item = int(small_world.ids[0])
        assert await score(state, item) is not None
        await until(lambda: table(state).cursor is not None)
        with locked(state):
            before = table(state).cursor
            await state.store.delete_items(np.array([item]))
            await until(lambda: state.refresher._late)
            await asyncio.sleep(2 * item_refresh.EVERY_S)
            assert table(state).cursor == before
            assert await score(state, item) is not None  # what can be said
        await until(lambda: table(state).cursor != before)
        assert await score(state, item) is None


def test_two_workers_never_answer_with_less_than_was_confirmed(small_world: World) -> None:
    """A short run of ``python -m tests.service.measure_stale``."""
    found = measure(small_world, changes=240, hammering=6)
    assert found["changes"] == 240
    assert found["older_than_confirmed"] == 0


STOPPED = """
import os, signal, sys
from pathlib import Path
from service.items.shared_file import TableFile
from tests.service.small_schema import SMALL
file = TableFile(Path(sys.argv[1]), SMALL, 1)
while not file.try_enter():
    pass
print("inside", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_process_stopped_inside_the_lock_silences_no_worker(
    small_world: World, tmp_path: Path
) -> None:
    folder = tmp_path / "tables"
    variables = {"QIN_WORKERS": str(WORKERS), "QIN_TABLE_FOLDER": str(folder)}
    with serving(small_world.models, small_world.store, **variables, QIN_THREADS="1") as service:
        wait_until(lambda: ready_lines(service) == WORKERS, "not all workers are ready")
        [path] = folder.glob("*.table")
        stopped = subprocess.Popen(
            [sys.executable, "-c", STOPPED, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert stopped.stdout is not None
        try:
            assert stopped.stdout.readline() == "inside\n"
            clients = [service.client() for _ in range(2 * WORKERS)]
            item = int(small_world.ids[0])
            body = {"user_id": 1, "candidates": [item], "history": []}
            level = {"context": {"likes_level": [9]}}
            new = clients[0].post("/v1/score", json={**body, **level}).json()["scores"]
            refused = clients[0].patch(f"/v1/items/{item}", json={"likes_level": 9})
            assert refused.status_code == 503
            assert refused.json()["type"] == "urn:qin:problem:not-confirmed"
            for client in clients:
                began = time.monotonic()
                assert client.get("/livez").status_code == 200
                assert time.monotonic() - began < 2  # for as long as it was stopped, before
                assert client.post("/v1/score", json=body).status_code == 200
        finally:
            stopped.send_signal(signal.SIGKILL)
            stopped.wait()
            stopped.stdout.close()
        deadline = time.monotonic() + 30
        while clients[0].patch(f"/v1/items/{item}", json={"likes_level": 9}).status_code != 204:
            assert time.monotonic() < deadline
        for client in clients:
            assert client.post("/v1/score", json=body).json()["scores"] == new
            client.close()
