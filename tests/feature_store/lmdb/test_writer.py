"""Another process holds LMDB's write lock: writes are given up in time, and then never made."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from feature_store import FeatureStore, connect
from feature_store.contract import Append, ItemRows
from feature_store.errors import StoreCorrupt, StoreError, StoreUnavailable
from feature_store.lmdb import environment as lmdb_environment
from feature_store.lmdb import writer as lmdb_writer
from feature_store.lmdb.environment import Txn
from feature_store.lmdb.store import LmdbStore
from feature_store.options import StoreOptions
from tests.feature_store.samples import SHOP, ids, random_rows

HOLDER = """
import sys, lmdb
environment = lmdb.open(sys.argv[1], max_dbs=10)
with environment.begin(write=True):
    print("held", flush=True)
    sys.stdin.readline()
"""
OPENER = """
import sys
from pathlib import Path
from feature_store.lmdb.environment import acquire
acquire(Path(sys.argv[1]), create=False, patience_s=0.3)
"""
IMPATIENT = StoreOptions(write_budget_ms=100)
BOUND_S = 20.0  # generous: without a budget it would be for ever


@contextmanager
def lock_held(path: Path) -> Iterator[None]:
    """By a process that is stopped, as in a frozen container."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == b"held\n"
    holder.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        holder.send_signal(signal.SIGCONT)
        holder.communicate(b"\n")


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    store = await connect(f"lmdb://{tmp_path / 'store'}", SHOP, create=True)
    await store.put_items(ids(3), random_rows(SHOP, 1))
    await store.close()
    return tmp_path / "store"


async def history(store: FeatureStore, user: int) -> list[int] | None:
    found = await store.history(user)
    return None if found is None else found.tolist()


async def eventually(write: Callable[[], Awaitable[bool]]) -> bool:
    """Until there is a turn: on a busy machine that may take more than the budget."""
    async with asyncio.timeout(BOUND_S):
        while True:
            with suppress(StoreUnavailable):
                return await write()
            await asyncio.sleep(0.02)


async def test_a_write_without_its_turn_is_given_up_and_never_made(path: Path) -> None:
    store = await connect(f"lmdb://{path}", SHOP, options=IMPATIENT)
    await eventually(lambda: store.append(1, [1], key="first"))
    with lock_held(path):
        began = time.monotonic()
        for user in (1, 2):
            with pytest.raises(
                StoreUnavailable, match="not written within 100 ms: another"
            ) as refused:
                await store.append(user, [9], key="k")
            assert not refused.value.unknown
        with pytest.raises(StoreUnavailable, match="not written"):
            await store.append_all([Append(1, [8]), Append(2, [8])])
        with pytest.raises(StoreUnavailable, match="not written"):
            await store.patch_item(3, lambda row: row.__setitem__("sku", 7))
        assert await history(store, 1) == [1]  # reads go on
        assert time.monotonic() - began < BOUND_S
    await eventually(lambda: store.append(1, [2], key="second"))
    assert await history(store, 1) == [2, 1]
    assert await history(store, 2) is None
    assert (await store.items(ids(3))).rows.tobytes() == random_rows(SHOP, 1).tobytes()
    assert await eventually(lambda: store.append(2, [9], key="k"))  # its key was not spent
    await store.close()


async def test_a_write_whose_caller_has_gone_is_not_made(path: Path) -> None:
    store = await connect(f"lmdb://{path}", SHOP, options=StoreOptions(write_budget_ms=20_000))
    with lock_held(path):
        waiting = asyncio.create_task(store.append(1, [5]))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        staying = asyncio.create_task(store.append(2, [6]))
        await asyncio.sleep(0.05)
    assert await staying
    assert await history(store, 1) is None
    assert await history(store, 2) == [6]
    await store.close()


async def test_only_so_many_writes_wait(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_writer, "MOST_WAITING", 20)
    store = await connect(f"lmdb://{path}", SHOP, options=StoreOptions(write_budget_ms=2_000))
    with lock_held(path):
        writes = [asyncio.create_task(store.append(user, [1])) for user in range(50)]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
    crowded = [str(o) for o in outcomes if "20 writes are waiting" in str(o)]
    assert len(crowded) == 30
    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
    await store.close()
    again = await connect(f"lmdb://{path}")
    assert await again.count_histories() == 0
    await again.close()


async def test_closing_and_opening_do_not_wait_for_the_lock_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_writer, "CLOSING_PATIENCE_S", 0.1)
    store = await connect(f"lmdb://{path}", SHOP, options=IMPATIENT)
    (key,) = (key for key in lmdb_environment._open if key[1].exists() and key[1].samefile(path))
    with lock_held(path):
        with pytest.raises(StoreUnavailable, match="not written"):
            await store.append(1, [1])
        async with asyncio.timeout(BOUND_S):
            await store.close()
        opened = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", OPENER, str(path)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert opened.returncode == 1
        assert "cannot be opened: another process has held its write lock" in opened.stderr
    async with asyncio.timeout(BOUND_S):
        while key in lmdb_environment._open:  # noqa: ASYNC110  until the blocked thread is through
            await asyncio.sleep(0.02)
    again = await connect(f"lmdb://{path}")
    assert await history(again, 1) is None
    await again.close()


async def test_what_waits_is_written_together_and_one_that_fails_costs_itself(path: Path) -> None:
    store = await connect(f"lmdb://{path}", SHOP, options=StoreOptions(write_budget_ms=20_000))
    assert isinstance(store, LmdbStore)
    transactions: list[Txn] = []

    def counted(txn: Txn) -> int:
        transactions.append(txn)
        return len(transactions)

    def damaged(txn: Txn) -> int:
        raise StoreCorrupt("damaged")

    with lock_held(path):
        changes = [counted, counted, damaged, counted]
        writes = [asyncio.create_task(store._writer.write(change)) for change in changes]
        await asyncio.sleep(0.1)
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, int, StoreCorrupt, int]
    assert len({id(txn) for txn in transactions[-3:]}) == 1
    await store.close()


async def test_a_key_that_lmdb_refuses_costs_its_own_write_alone(path: Path) -> None:
    store = await connect(f"lmdb://{path}", SHOP, options=StoreOptions(write_budget_ms=20_000))
    too_long = "n" * 600  # LMDB takes 511 bytes
    with lock_held(path):
        writes = [store.append(1, [1]), store.put_note(too_long, b"x"), store.append(2, [2])]
        waiting = [asyncio.ensure_future(write) for write in writes]
        await asyncio.sleep(0.1)  # so that they are written together
    first, refused, second = await asyncio.gather(*waiting, return_exceptions=True)
    assert (first, second) == (True, True)
    assert isinstance(refused, StoreError)
    assert "MDB_BAD_VALSIZE" in str(refused)
    await store.close()


async def test_a_change_that_raises_what_is_no_store_error_is_its_callers(path: Path) -> None:
    store = await connect(f"lmdb://{path}", SHOP)
    with pytest.raises(ZeroDivisionError):
        await store.patch_item(3, lambda row: row.__setitem__("sku", 1 // 0))
    assert await store.append(1, [1])  # the thread goes on

    def leave(row: ItemRows) -> None:
        raise SystemExit(3)

    with pytest.raises(StoreUnavailable, match="SystemExit"):
        await store.patch_item(3, leave)
    assert await store.append(1, [2])
    rows = random_rows(SHOP, 500)
    await store.put_items(np.arange(500), rows)
    assert (await store.items(np.arange(500))).rows.tobytes() == rows.tobytes()
    await store.close()


async def test_of_a_commit_under_way_the_outcome_is_waited_for_and_else_unknown(
    path: Path,
) -> None:
    """It is being written already, so that it cannot be taken back."""
    store = await connect(f"lmdb://{path}", SHOP, options=StoreOptions(1.0, 1.0))
    assert isinstance(store, LmdbStore)
    writer = store._writer
    begun, go_on = threading.Event(), threading.Event()

    def slowly(txn: Txn) -> str:
        begun.set()
        go_on.wait(BOUND_S)
        return "written"

    async def writing() -> asyncio.Task[str]:
        """The loop stands still until the change is being made: its budget ends no sooner."""
        begun.clear()
        task = asyncio.create_task(writer.write(slowly))
        await asyncio.sleep(0)
        assert begun.wait(BOUND_S)
        return task

    patient = await writing()
    await asyncio.sleep(0.1)  # well beyond the budget
    go_on.set()
    assert await patient == "written"
    go_on.clear()
    writer._outcome_s = 0.05
    impatient = await writing()
    with pytest.raises(StoreUnavailable, match="may yet be written") as late:
        await impatient
    assert late.value.unknown
    go_on.set()
    await store.close()
