"""The process that fills an item table: what it makes, what it may, and how it fails."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_store import connect
from feature_store.options import StoreOptions
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError
from service.engine.niceness import LOWEST
from service.errors import ModelRefused
from service.items.own_file import OwnFile
from service.items.shared_file import TableFile
from service.items.table import ItemTable
from service.lifecycle import load_steps, memory_budget
from service.lifecycle.load_steps import LoadSteps, Stopped
from service.lifecycle.table_process import TableProcess
from service.settings import Settings
from service.state import ServiceState
from tests.feature_store.fault_proxy import Fault, FaultProxy
from tests.feature_store.redis_servers import Server, standalone
from tests.full_disk import files_of_at_most
from tests.service.in_process import ask, opened
from tests.service.lifecycle.conftest import two_versions
from tests.service.processes.test_workers import is_alive
from tests.service.world import SMALL, World, on_another_store

ALONE: dict[str, Any] = {"model_policy": "manual", "fleet": ""}
Done = Callable[[TableProcess], None]


class Quiet:
    def enter(self, *_: object) -> None: ...
    def advance(self, count: int) -> None: ...


def steps(world: World, **changed: Any) -> LoadSteps:
    settings = Settings(bundle=world.models, store=world.store, threads=1, **changed)
    bundle = Bundle.open(world.bundle.path)
    return LoadSteps(bundle, settings, [], Quiet(), threading.Event(), lambda _: None)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> World:
    return two_versions(tmp_path_factory.mktemp("tables"))[0]


@pytest.fixture
def in_a_child(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Called when tables are to be filled by a process, however few items they have."""
    return lambda: monkeypatch.setattr(load_steps, "FEW", 0)


@asynccontextmanager
async def serving_small_2(
    world: World, in_a_child: Callable[[], None], **changed: Any
) -> AsyncIterator[ServiceState]:
    """``small-1`` is not loaded, and what is loaded next takes a child."""
    async with opened(world, **ALONE, **changed) as state:
        await state.manager.activate("small-2")
        await state.manager.unload("small-1")
        in_a_child()
        yield state


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Done]]:
    """What is done to each process as soon as it has started, in turn."""
    then, start, all_of_them = list[Done](), TableProcess.start, list[TableProcess]()

    def starting(*arguments: Any) -> TableProcess:
        process = start(*arguments)
        all_of_them.append(process)
        if then:
            then.pop(0)(process)
        return process

    monkeypatch.setattr(TableProcess, "start", starting)
    yield then
    assert not [p for p in all_of_them if p.child.poll() is None], "some were left behind"


def killed(process: TableProcess) -> None:
    process.child.kill()


def stopped(process: TableProcess) -> None:
    process.child.send_signal(signal.SIGSTOP)


def unchanged(process: TableProcess) -> None: ...


def content(table: ItemTable) -> list[np.ndarray]:
    ids = np.sort(table.ids())
    return [ids, *table.columns.gather(table.find(ids)).columns()]


@pytest.mark.parametrize("shared", [False, True])
def test_the_table_is_the_one_that_this_process_would_make(
    published: World, tmp_path: Path, in_a_child: Callable[[], None], shared: bool
) -> None:
    more = {"table_folder": tmp_path / "tables"} if shared else {}
    ours = steps(published).run().table
    in_a_child()
    theirs = steps(published, **more).run().table
    assert theirs.count == len(published.ids)
    assert theirs.cursor == ours.cursor is not None
    for mine, other in zip(content(ours), content(theirs), strict=True):
        np.testing.assert_allclose(other, mine, atol=1e-6)
    new = np.array([10**15])
    theirs.insert(new, ours.columns.gather(ours.find(published.ids[:1])))
    assert theirs.count == len(published.ids) + 1  # it is this process's from now on


def test_items_that_find_no_room_are_counted(
    published: World, in_a_child: Callable[[], None]
) -> None:
    in_a_child()
    table = steps(published, max_table_items=100).run().table
    assert (table.count, table.refused) == (100, len(published.ids) - 100)


async def activated(state: ServiceState) -> None:
    await state.manager.activate("small-1")
    assert await serves(state, "small-1")


async def serves(state: ServiceState, version: str) -> bool:
    answer = await ask(state, user_id=3, candidates=[1])
    return bool(answer.json()["model_version"] == version)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (killed, "ended after 0 items (killed by SIGKILL)"),
        (stopped, r"no progress for 0.5 s (QIN_FILL_STALL_S): it is stopped, or has no"),
    ],
)
async def test_a_child_that_is_killed_or_stopped_fails_its_load_alone(
    published: World,
    started: list[Done],
    in_a_child: Callable[[], None],
    fault: Done,
    reason: str,
) -> None:
    async with serving_small_2(published, in_a_child) as state:
        object.__setattr__(state.settings, "fill_stall_s", 0.5)
        started.append(fault)
        with pytest.raises(ModelRefused) as refused:
            await state.manager.activate("small-1")
        assert reason in refused.value.detail
        assert str(state.copies.path) not in refused.value.detail
        assert state.manager.catalog.entry("small-1").state == "failed"
        assert await serves(state, "small-2")
        object.__setattr__(state.settings, "fill_stall_s", 60.0)
        await activated(state)


async def test_a_stop_of_the_service_ends_the_child(
    published: World, started: list[Done], in_a_child: Callable[[], None]
) -> None:
    at_work = threading.Event()

    def stopped_for_ever(process: TableProcess) -> None:
        stopped(process)
        at_work.set()

    async with serving_small_2(published, in_a_child) as state:
        started.append(stopped_for_ever)
        load = asyncio.create_task(state.manager.load("small-1"))
        await asyncio.to_thread(at_work.wait)
    with pytest.raises((asyncio.CancelledError, Stopped)):
        await load  # and ``started`` looks for the child


async def test_a_table_for_which_there_is_no_room_is_not_begun(
    published: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_a_child: Callable[[], None],
) -> None:
    """Neither where that is known beforehand nor where the disk fills meanwhile."""
    folder = tmp_path / "tables"
    async with serving_small_2(published, in_a_child, table_folder=folder) as state:
        [table] = folder.glob("*.table")
        with files_of_at_most(table.stat().st_size - 1), pytest.raises(ModelRefused) as refused:
            await state.manager.activate("small-1")
        assert "no room for an item table of" in refused.value.detail
        assert "lower QIN_MAX_TABLE_ITEMS" in refused.value.detail
        usage = shutil.disk_usage(folder)._replace(free=table.stat().st_size - 1)
        with monkeypatch.context() as patch:
            patch.setattr(memory_budget, "disk_usage", lambda _: usage)
            with pytest.raises(ModelRefused) as refused:
                await state.manager.activate("small-1")
        mib = table.stat().st_size >> 20
        expected = f"{folder}: about {mib} MiB are needed for its item table and {mib} MiB are free"
        assert expected in refused.value.detail
        assert list(folder.glob("*.table*")) == [table]
        assert await serves(state, "small-2")
        await activated(state)


@pytest.fixture
async def behind(
    published: World, redis: Server, redis_url: str
) -> AsyncIterator[tuple[World, FaultProxy]]:
    proxy = FaultProxy(redis.port)
    await proxy.become(Fault.NONE)
    url = redis_url.replace(str(redis.port), str(proxy.port))
    await asyncio.to_thread(on_another_store, published, redis_url)
    try:
        yield replace(published, store=url), proxy
    finally:
        await proxy.become(Fault.REFUSED)


async def test_a_store_that_goes_away_meanwhile_fails_the_load(
    behind: tuple[World, FaultProxy], started: list[Done], in_a_child: Callable[[], None]
) -> None:
    world, proxy = behind
    loop = asyncio.get_running_loop()

    def gone(_: TableProcess) -> None:
        asyncio.run_coroutine_threadsafe(proxy.become(Fault.REFUSED), loop).result()

    async with serving_small_2(world, in_a_child, on_store_failure="degrade") as state:
        started.append(gone)
        with pytest.raises(ModelRefused, match="redis"):
            await state.manager.activate("small-1")
        assert await serves(state, "small-2")
        await proxy.become(Fault.NONE)
        async with asyncio.timeout(30):
            while not await serves(state, "small-1"):  # once the breakers have closed
                with suppress(ModelRefused):
                    await state.manager.activate("small-1")


async def test_a_slow_store_delays_the_load_and_no_other_answer(
    published: World, tmp_path: Path, started: list[Done], in_a_child: Callable[[], None]
) -> None:
    loop, slow = asyncio.get_running_loop(), asyncio.Event()
    with standalone(tmp_path / "redis") as server:
        proxy = FaultProxy(server.port)
        await proxy.become(Fault.NONE)
        here, there = (f"redis://127.0.0.1:{port}" for port in (server.port, proxy.port))
        options = StoreOptions(budget_ms=5_000, partitions=1)  # few answers
        store = await connect(here, published.schema, create=True, options=options)
        await store.put_items(published.ids, published.rows)
        await store.close()

        def slowed(_: TableProcess) -> None:
            asyncio.run_coroutine_threadsafe(proxy.become(Fault.SLOW), loop).result()
            loop.call_soon_threadsafe(slow.set)

        async with serving_small_2(replace(published, store=there), in_a_child) as state:
            started.append(slowed)
            load = asyncio.create_task(state.manager.load("small-1"))
            await slow.wait()
            assert await serves(state, "small-2")
            assert not load.done()
            await proxy.become(Fault.NONE)
            await load
            await activated(state)
        await proxy.become(Fault.REFUSED)


KILLED = """
import os, signal, sys
from pathlib import Path
from model_export.bundle.bundle import Bundle
from service.items.shared_file import TableFile
from service.lifecycle.table_process import TableProcess
from service.settings import Settings
path, store, table = sys.argv[1:]
bundle = Bundle.open(path)
file = TableFile(Path(table), bundle.schema, 1000)
with file.filling():
    process = TableProcess.start(bundle, file, Settings(bundle=path, store=store), 0)
    limits = Path(f"/proc/{process.child.pid}/limits")
    while "Max file size             0 " not in limits.read_text():
        pass
    process.child.send_signal(signal.SIGSTOP)
    print(process.child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_child_of_a_killed_process_ends_and_another_may_fill_the_table(
    published: World, tmp_path: Path
) -> None:
    """Also a child that was stopped."""
    table = tmp_path / "a.table"
    words = [sys.executable, "-c", KILLED, published.bundle.path, published.store, table]
    child = int(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False).stdout)
    file, deadline = TableFile(table, SMALL, 1000), time.monotonic() + 30
    while True:
        with file.filling() as ours:
            if ours:
                break
        assert time.monotonic() < deadline
    while is_alive(child):  # its locks are gone a little before it is
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_processes_that_share_tables_start_one_child(
    published: World, tmp_path: Path, started: list[Done], in_a_child: Callable[[], None]
) -> None:
    """And if that is killed, its load fails and the next process fills the table."""
    count = 0
    in_a_child()

    def counted(fault: Done) -> Done:
        def act(process: TableProcess) -> None:
            nonlocal count
            count += 1
            fault(process)

        return act

    found: list[ItemTable] = []
    failures: list[BundleError] = []

    def load() -> None:
        try:
            found.append(steps(published, table_folder=tmp_path / "tables").run().table)
        except BundleError as error:
            failures.append(error)

    for faults, fail in (((unchanged,), 0), ((killed, unchanged), 1)):
        found.clear()
        count = 0
        started.extend(map(counted, faults))
        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert (count, len(failures), len(found)) == (len(faults), fail, 3 - fail)
        assert {table.count for table in found} == {len(published.ids)}


def test_the_child_is_confined_and_is_told_no_secret_where_others_see_it(
    published: World, started: list[Done]
) -> None:
    secret = "lmdb://" + "s3cret"
    settings = Settings(bundle=published.models, store=secret)
    file = OwnFile(SMALL, 10)
    process = TableProcess.start(published.bundle, file, settings, LOWEST)
    proc = Path(f"/proc/{process.child.pid}")
    try:
        limits, deadline = "", time.monotonic() + 30
        while "Max file size             0 " not in limits:
            limits = (proc / "limits").read_text()
            assert time.monotonic() < deadline, limits
        process.child.send_signal(signal.SIGSTOP)
        assert "Max core file size        0 " in limits
        size = sum(record.size for record in published.bundle.manifest.files.values())
        assert f" {(4096 << 20) + 3 * size} " in limits  # of its data
        for name in ("cmdline", "environ"):
            assert b"s3cret" not in (proc / name).read_bytes()
            assert b"QIN_" not in (proc / name).read_bytes()
        niceness = min(os.getpriority(os.PRIO_PROCESS, 0) + LOWEST, LOWEST)
        assert os.getpriority(os.PRIO_PROCESS, process.child.pid) == niceness
        process.child.send_signal(signal.SIGCONT)
        with pytest.raises(Exception, match="s3cret: there is no feature store"):
            process.wait(lambda _: None)
    finally:
        process.child.kill()


def test_a_child_cannot_cut_a_table_short() -> None:
    """The process that maps it would end when it reads what is gone."""
    file = OwnFile(SMALL, 10)
    [descriptor] = file.descriptors
    size = os.fstat(descriptor).st_size
    for other in (0, size - 1, 2 * size):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, other)
    with pytest.raises(PermissionError):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


async def test_the_file_of_an_unloaded_table_is_closed_and_its_memory_free(
    published: World,
) -> None:
    def uses() -> tuple[int, int]:
        """Descriptors and mappings of such files in this process."""
        gc.collect()
        links = (os.readlink(fd) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink())
        maps = Path("/proc/self/maps").read_text()
        return sum("memfd:item-table" in link for link in links), maps.count("memfd:item-table")

    async with opened(published, **ALONE) as state:
        await state.manager.activate("small-2")
        await state.manager.unload("small-1")
        before = uses()
        await state.manager.load("small-1")
        assert uses() > before
        await state.manager.unload("small-1")
        assert uses() == before
