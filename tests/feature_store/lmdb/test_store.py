"""What is LMDB's own: growth, sharing between processes, durability, folders that are no store."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path

import lmdb
import numpy as np
import pytest

from feature_store import connect
from feature_store.contract import CORRUPT, FOUND, Append
from feature_store.errors import StoreCorrupt, StoreError, StoreMismatch, StoreRefused
from feature_store.lmdb.change_log import SeenKeys
from feature_store.lmdb.environment import DATABASES, FIRST_MAP_BYTES, acquire, release
from feature_store.options import StoreOptions
from feature_store.schema import FeatureSchema
from tests.feature_store.samples import SHOP, ids, random_rows

WIDE = FeatureSchema.microlens()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


async def test_the_map_grows_by_itself(path: Path) -> None:
    store = await connect(f"lmdb://{path}", WIDE, create=True)
    rows, batch = random_rows(WIDE, 8_192), 0
    while (path / "data.mdb").stat().st_size < 1.5 * FIRST_MAP_BYTES:
        await store.put_items(np.arange(8_192) + batch * 8_192, rows)
        batch += 1
    first, last = await store.items(ids(0)), await store.items(ids(batch * 8_192 - 1))
    assert first.rows.tobytes() == rows[:1].tobytes()
    assert last.rows.tobytes() == rows[-1:].tobytes()
    await store.close()


WRITER = """
import asyncio, sys
import numpy as np
from feature_store import connect
from tests.feature_store.samples import random_rows
async def main():
    store = await connect(sys.argv[1])
    rows = random_rows(store.schema, 8_192)
    for batch in range(20):
        await store.put_items(np.arange(8_192) + batch * 8_192, rows)
        await store.append(1, [batch])
    await store.close()
asyncio.run(main())
"""


@pytest.mark.parametrize("again", [False, True])
async def test_a_folder_that_was_removed_or_made_anew_takes_no_click(
    path: Path, again: bool
) -> None:
    """It would be acknowledged, and written to a file that is not opened again."""
    store = await connect(f"lmdb://{path}", SHOP, create=True)
    await store.append(7, [1])
    os.rename(path, path.with_name("before"))
    if again:
        made = await connect(f"lmdb://{path.with_name('new')}", SHOP, create=True)
        await made.close()
        os.rename(path.with_name("new"), path)
    for refused in (store.append(7, [2]), store.changes(None), connect(f"lmdb://{path}")):
        with pytest.raises(StoreMismatch, match="was removed or replaced while it was open"):
            await refused
    found = await store.history(7)
    assert found is not None
    assert found.tolist() == [1]
    await store.close()
    before = await connect(f"lmdb://{path.with_name('before')}")
    found = await before.history(7)
    assert found is not None
    assert found.tolist() == [1]
    await before.close()


async def test_reads_and_writes_go_on_while_another_process_loads(path: Path) -> None:
    """The other process grows the map under us; nothing fails and nobody's write is lost."""
    url = f"lmdb://{path}"
    store = await connect(url, WIDE, create=True)
    row = random_rows(WIDE, 1, seed=9)
    await store.put_items(ids(10**9), row)
    loader = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, url)
    ended = asyncio.create_task(loader.wait())
    clicks = 0
    while not ended.done():
        batch = await store.items(ids(10**9, 17))
        assert batch.status[0] == FOUND
        assert batch.rows[:1].tobytes() == row.tobytes()
        await store.append(2, [clicks])
        clicks += 1
        found = await store.history(2)
        assert found is not None
        assert found[0] == clicks - 1
    assert loader.returncode == 0
    assert clicks > 10
    assert (path / "data.mdb").stat().st_size > FIRST_MAP_BYTES
    assert await store.count_items() == 20 * 8_192 + 1
    loaded = await store.history(1)
    assert loaded is not None
    assert loaded.tolist() == list(range(20))[::-1]
    await store.close()


KILLED = """
import asyncio, os, signal, sys
from feature_store import connect
async def main():
    store = await connect(sys.argv[1])
    await store.append(1, [1, 2, 3])
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_an_acknowledged_append_survives_a_kill(path: Path) -> None:
    url = f"lmdb://{path}"
    await (await connect(url, SHOP, create=True)).close()
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, url)
    assert await killed.wait() == -signal.SIGKILL
    store = await connect(url)
    found = await store.history(1)
    assert found is not None
    assert found.tolist() == [3, 2, 1]
    await store.close()


async def test_threads_and_connections_share_one_environment(path: Path) -> None:
    url = f"lmdb://{path}"
    stores = [await connect(url, SHOP, create=True) for _ in range(4)]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        async def many() -> None:
            for click in range(50):
                await stores[number].append(number, [click])
                await stores[number].items(ids(1, 2, 3))

        try:
            asyncio.run(many())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert not failures
    for store in stores:
        await store.close()
    await (await connect(url)).close()  # every release was counted: it opens once more


async def test_an_append_does_not_wait_in_the_event_loop(path: Path) -> None:
    """Another writer holds LMDB's lock: reads go on, and the append comes through afterwards."""
    store = await connect(f"lmdb://{path}", SHOP, create=True)
    environment = acquire(path, create=False)
    hold, held = threading.Event(), threading.Event()

    def holder(_: object) -> None:
        held.set()
        hold.wait(10)

    blocker = threading.Thread(target=environment.write, args=(holder,))
    blocker.start()
    held.wait(10)
    append = asyncio.create_task(store.append(1, [5]))
    await asyncio.sleep(0.05)
    assert not append.done()
    assert await store.history(1) is None
    hold.set()
    await append
    assert await store.history(1) is not None
    blocker.join()
    release(environment)
    await store.close()


def overwrite(path: Path, database: str, key: bytes, value: bytes) -> None:
    with lmdb.open(str(path), max_dbs=10) as environment:
        db = environment.open_db(database.encode(), create=False)
        with environment.begin(write=True) as txn:
            txn.put(key, value, db=db)


async def test_a_damaged_record_is_told_and_the_rest_is_answered(path: Path) -> None:
    url = f"lmdb://{path}"
    store = await connect(url, SHOP, create=True)
    await store.put_items(ids(1, 2, 3), random_rows(SHOP, 3))
    await store.append(7, [1])
    await store.append(8, [1])
    await store.close()
    overwrite(path, "items", (2).to_bytes(8, "big"), b"noise")
    overwrite(path, "histories", (7).to_bytes(8, "big"), b"noise")
    store = await connect(url)
    assert (await store.items(ids(1, 2, 3))).status.tolist() == [FOUND, CORRUPT, FOUND]
    assert await store.fault(2) == "not an item record"
    with pytest.raises(StoreCorrupt, match="item 2: not an item record; replace the whole item"):
        await store.patch_item(2, lambda row: None)
    with pytest.raises(StoreCorrupt, match="history of user 7"):
        await store.history(7)
    results = await store.append_all([Append(8, [2]), Append(7, [2], "k"), Append(9, [2])])
    assert [type(result) for result in results] == [bool, StoreCorrupt, bool]
    await store.put_histories({7: ids(4)})  # the remedy it names
    assert await store.append(7, [5], "k")  # the failed append's key was not spent
    await store.put_items(ids(2), random_rows(SHOP, 1))
    assert (await store.items(ids(2))).status.tolist() == [FOUND]
    await store.close()


async def test_a_numeric_store_is_recorded_as_earlier_releases_do(path: Path) -> None:
    await (await connect(f"lmdb://{path}", SHOP, create=True)).close()
    with lmdb.open(str(path), max_dbs=8) as environment, environment.begin() as txn:
        assert set(txn.cursor().iternext(values=False)) == {name.encode() for name in DATABASES}
        meta = environment.open_db(b"meta", txn=txn, create=False)
        record = dict(txn.cursor(meta).iternext())
    assert record[b"format"] == b"1"
    assert b"id_key" not in record


@pytest.mark.parametrize(
    ("key", "value", "error", "reason"),
    [
        (b"format", b"17", StoreMismatch, "store format 17, newer than this program's 16"),
        (b"format", b"2", StoreCorrupt, "key of its text ids is damaged"),
        (b"format", b"4", StoreCorrupt, "key of its text ids is damaged"),
        (b"format", b"one", StoreCorrupt, "format record is damaged"),
        (b"schema", b"\xff", StoreCorrupt, "schema record is damaged"),
        (b"schema", b"name: 3", StoreCorrupt, "schema record is damaged"),
    ],
)
async def test_a_store_this_program_cannot_read_says_why(
    path: Path, key: bytes, value: bytes, error: type[StoreError], reason: str
) -> None:
    await (await connect(f"lmdb://{path}", SHOP, create=True)).close()
    overwrite(path, "meta", key, value)
    for create in (False, True):
        with pytest.raises(error, match=reason):
            await connect(f"lmdb://{path}", SHOP, create=create)


async def test_folders_that_are_no_store(tmp_path: Path) -> None:
    path = tmp_path
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as txn:
        txn.put(b"somebody", b"else's")
    with pytest.raises(StoreMismatch, match="not a feature store"):
        await connect(f"lmdb://{path}", SHOP)
    (path / "data.mdb").write_bytes(b"garbage" * 10_000)
    with pytest.raises(StoreMismatch, match="not an LMDB environment"):
        await connect(f"lmdb://{path}", SHOP)
    with pytest.raises(StoreRefused, match="cannot be created"):
        await connect(f"lmdb://{path / 'data.mdb'}/store", SHOP, create=True)


@pytest.mark.parametrize("url", ["", "lmdb", "lmdb://", "lmdb:/x", "mysql://x", "/var/store"])
async def test_what_is_no_store_url_says_so(url: str) -> None:
    with pytest.raises(StoreMismatch, match="is not a store URL"):
        await connect(url, SHOP)


async def test_idempotency_keys_are_forgotten_and_stay_bounded(path: Path) -> None:
    store = await connect(
        f"lmdb://{path}", SHOP, create=True, options=StoreOptions(idempotency_ttl_s=0)
    )
    for click in range(50):
        assert await store.append(7, [click], key=str(click))
    assert await store.append(7, [1], key="1")
    environment = acquire(path, create=False)
    for name in ("seen_keys", "seen_times"):
        db = environment.db[name]
        assert environment.read(lambda txn, db=db: txn.stat(db)["entries"]) <= 2  # type: ignore[misc]
    release(environment)
    await store.close()


def test_the_key_log_remembers_within_its_time(path: Path) -> None:
    environment = acquire(path, create=True)
    seen = SeenKeys(environment, ttl_s=60)
    assert environment.write(lambda txn: seen.first_time(txn, 1, "k"))
    assert not environment.write(lambda txn: seen.first_time(txn, 1, "k"))
    release(environment)
