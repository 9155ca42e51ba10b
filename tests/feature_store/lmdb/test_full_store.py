"""A store without room says so, with its place and the remedy: a disk, a memory map, Redis."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lmdb
import pytest

from feature_store.errors import StoreFull, StoreUnavailable
from feature_store.lmdb import errors as lmdb_errors
from feature_store.lmdb.errors import translated
from tests.feature_store.parquet_samples import item_columns, write
from tests.feature_store.redis_servers import Server, standalone
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.server_faults import out_of_memory
from tests.feature_store.stores import connect

ALONE = ("unshare", "--user", "--map-root-user", "--mount")
MOUNTED = 'mount -t tmpfs -o size=$1 none "$0" && shift && exec "$@"'
FILLS = """
import asyncio, sys
import numpy as np
from feature_store import connect
from feature_store.errors import StoreError
from tests.feature_store.samples import SHOP, random_rows
async def main():
    store = await connect(f"lmdb://{sys.argv[1]}/store", SHOP, create=True)
    await store.append(10**9, [1, 2])
    rows, batch = random_rows(SHOP, 512), 0
    try:
        while True:
            await store.put_items(np.arange(512) + 512 * batch, rows)
            batch += 1
    except StoreError as error:
        print(type(error).__name__, error)
    try:
        for click in range(10_000):
            await store.append(click, [1] * 8)
    except StoreError as error:
        print(type(error).__name__, error)
    print((await store.history(10**9)).tolist(), await store.count_items() == 512 * batch)
    await store.close()
asyncio.run(main())
"""


def on_a_small_disk(disk: Path, size: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run with a file system of this size mounted where only the command sees it."""
    disk.mkdir(exist_ok=True)
    small = (*ALONE, "sh", "-c", MOUNTED, str(disk), size)
    tried = subprocess.run([*small, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no file system of one's own here: {tried.stderr.strip()}")
    return subprocess.run([*small, *command], capture_output=True, text=True, timeout=120)


def test_a_full_disk_is_named_with_its_path_and_what_was_written_stays(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    ended = on_a_small_disk(disk, "1m", sys.executable, "-c", FILLS, str(disk))
    assert ended.returncode == 0, ended.stderr
    *refused, last = ended.stdout.splitlines()
    assert len(refused) == 2
    for line in refused:
        assert line.startswith(f"StoreFull {disk}/store: the disk is full: free space")
    assert last == "[2, 1] True"


@pytest.mark.parametrize("size", ["64k", "128k", "1m"])
def test_a_load_onto_a_full_disk_is_one_line_with_the_path(tmp_path: Path, size: str) -> None:
    """Also where there is no room for the first page."""
    disk, schema = tmp_path / "disk", tmp_path / "schema.yaml"
    schema.write_text(SHOP.to_yaml())
    count = 20_000
    rows = random_rows(SHOP, count)
    items = write(tmp_path / "items.parquet", item_columns(SHOP, ids(*range(1, count + 1)), rows))
    command = [sys.executable, "-m", "feature_store", "load", f"lmdb://{disk}/store"]
    command += ["--schema", str(schema), "--items", str(items)]
    ended = on_a_small_disk(disk, size, *command, "--rejects", str(tmp_path / "rejects"))
    assert ended.returncode == 1, ended.stdout
    [line] = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert f"{disk}/store: the disk is full" in line
    assert "Traceback" not in ended.stderr


def test_files_beside_a_store_that_find_no_room_are_named(tmp_path: Path) -> None:
    """Of rejected rows, of differences, of an export."""
    disk, schema, count = tmp_path / "disk", tmp_path / "schema.yaml", 20_000
    schema.write_text(SHOP.to_yaml())
    rows = random_rows(SHOP, count)
    wrong = write(tmp_path / "wrong.parquet", item_columns(SHOP, ids(*[1] * count), rows))
    whole = write(tmp_path / "items.parquet", item_columns(SHOP, ids(*range(count)), rows))
    tool, url = [sys.executable, "-m", "feature_store"], f"lmdb://{tmp_path}/store"
    load = [*tool, "load", url, "--schema", str(schema)]
    good = subprocess.run([*load, "--items", str(whole)], cwd=tmp_path, timeout=120)
    assert good.returncode == 0
    check = [*tool, "check", url, "--items", str(wrong)]
    for name, command in {
        "rejects": [*load, "--items", str(wrong), "--rejects", f"{disk}/rejects"],
        "differences": [*check, "--differences", f"{disk}/differences"],
        "export": [*tool, "export", url, f"{disk}/export"],
    }.items():
        ended = on_a_small_disk(disk, "64k", *command)
        assert ended.returncode == 1, (name, ended.stderr)
        [line] = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
        assert f"{disk}/{name}" in line
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (lmdb.DiskError(f"mdb_txn_commit: {os.strerror(errno.ENOSPC)}"), "the disk is full"),
        (lmdb.Error(f"mdb_put: {os.strerror(errno.EDQUOT)}"), "the disk quota is used up"),
        (OSError(errno.EDQUOT, "no"), "the disk quota is used up"),
        (OSError(errno.ENOSPC, "no"), "the disk is full"),
        (lmdb.MapFullError("mdb_put: MDB_MAP_FULL"), "memory map is full and could not grow"),
    ],
)
def test_what_is_full_is_distinguished(tmp_path: Path, error: Exception, what: str) -> None:
    with pytest.raises(StoreFull, match=f"{tmp_path}: .*{what}"), translated(tmp_path):
        raise error


def test_an_input_output_error_is_a_full_disk_only_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB calls a page of which only a part fitted an input/output error."""
    error = lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.EIO)}")
    with pytest.raises(StoreUnavailable, match="Input/output error"), translated(tmp_path):
        raise error
    monkeypatch.setattr(lmdb_errors, "_when_written", lambda path: errno.ENOSPC)
    with pytest.raises(StoreFull, match="the disk is full"), translated(tmp_path):
        raise error


LIMITED = """
import asyncio, resource, sys
import numpy as np
from feature_store import connect
from feature_store.errors import StoreError
from feature_store.schema import FeatureSchema
from tests.feature_store.samples import random_rows
async def main():
    schema = FeatureSchema.microlens()
    store = await connect(f"lmdb://{sys.argv[1]}", schema, create=True)
    rows, batch = random_rows(schema, 8192), 0
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (80 << 20), resource.RLIM_INFINITY))
    try:
        while True:
            await store.put_items(np.arange(8192) + 8192 * batch, rows)
            batch += 1
    except StoreError as error:
        print(type(error).__name__, error)
asyncio.run(main())
"""


def test_a_map_that_cannot_grow_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "store")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "StoreFull" in ended.stdout, ended.stderr
    assert "memory map is full and could not grow: raise the limit on address" in ended.stdout


async def test_redis_at_its_maxmemory_is_full(tmp_path: Path) -> None:
    with standalone(tmp_path / "server") as server:
        store = await connect(f"redis://127.0.0.1:{server.port}", SHOP, create=True)
        with out_of_memory(server), pytest.raises(StoreFull, match="raise maxmemory"):
            await store.append(7, [1])
        await store.close()


@pytest.mark.parametrize(
    ("settings", "meaning"),
    [
        ({"appendonly": "no"}, "in memory alone"),
        ({"appendonly": "no", "save": "3600 1"}, "in memory until the next snapshot"),
        ({"appendonly": "yes", "appendfsync": "everysec"}, "on disk within a second"),
        ({"appendonly": "yes", "appendfsync": "always"}, "on disk before it is answered"),
        ({"appendonly": "yes", "appendfsync": "no"}, "on disk when the kernel flushes it"),
    ],
)
async def test_what_an_acknowledged_click_outlives_is_told_by_the_servers_settings(
    tmp_path: Path, settings: dict[str, str], meaning: str
) -> None:
    with standalone(tmp_path / "server") as server:
        for name, value in settings.items():
            server.client().config_set(name, value)
        store = await connect(f"redis://127.0.0.1:{server.port}", SHOP, create=True)
        told = await store.describe()
        assert str(told["acknowledged_click"]).startswith(meaning)
        assert told["appendfsync"] == settings.get("appendfsync", "everysec")
        assert told["maxmemory_policy"] == "noeviction"
        await store.close()


async def test_where_config_is_not_permitted_that_is_said(redis: Server, redis_url: str) -> None:
    """As at most providers."""
    await (await connect(redis_url, SHOP, create=True)).close()
    redis.client().acl_setuser(
        "managed", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-config"]
    )
    url = redis_url.replace("redis://", "redis://managed:any@")
    store = await connect(url, SHOP)
    told = await store.describe()
    assert told["appendfsync"] == "cannot be read (CONFIG GET is not permitted)"
    assert told["acknowledged_click"]
    await store.close()
    redis.client().acl_deluser("managed")


async def test_lmdb_is_on_disk_before_it_answers(tmp_path: Path) -> None:
    store = await connect(f"lmdb://{tmp_path / 'store'}", SHOP, create=True)
    told: dict[str, Any] = await store.describe()
    assert told["acknowledged_click"] == "on disk before it is answered (fsync)"
    await store.close()


@pytest.mark.parametrize("kib", [4, 72])
def test_a_limit_on_the_size_of_files_is_named_and_the_same_command_goes_on_without_it(
    tmp_path: Path, kib: int
) -> None:
    """Also where it leaves nothing but the lock file of a new store."""
    schema, store, count = tmp_path / "schema.yaml", tmp_path / "store", 3000
    schema.write_text(SHOP.to_yaml())
    rows = random_rows(SHOP, count)
    items = write(tmp_path / "items.parquet", item_columns(SHOP, ids(*range(1, count + 1)), rows))
    command = [sys.executable, "-m", "feature_store", "load", f"lmdb://{store}"]
    command += ["--schema", str(schema), "--items", str(items)]
    limited = ["sh", "-c", f'ulimit -f {2 * kib} && exec "$@"', "sh", *command]  # of 512 bytes
    ended = subprocess.run(limited, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert ended.returncode == 1
    assert f"{store}: the limit on the size of a file is reached" in ended.stderr
    assert (store / "lock.mdb").exists()
    again = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
