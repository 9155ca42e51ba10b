"""A store on a read-only mount, or of another user, is read all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from feature_store.errors import StoreRefused
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.stores import connect

MOUNTED = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
READ_ONLY = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNTED)


async def filled(folder: Path) -> str:
    """A store of 5 items and the history of user 7 in ``folder``."""
    url = f"lmdb://{folder / 'store'}"
    store = await connect(url, SHOP, create=True)
    await store.put_items(ids(*range(1, 6)), random_rows(SHOP, 5))
    await store.append(7, [1, 2])
    await store.close()
    return url


def on_a_read_only_mount(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    mounted = (*READ_ONLY, str(folder))
    tried = subprocess.run([*mounted, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no mount of one's own here: {tried.stderr.strip()}")
    command = [*mounted, sys.executable, "-m", "feature_store", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


async def test_on_a_read_only_mount_it_is_looked_up_and_checked(tmp_path: Path) -> None:
    url = await filled(tmp_path)
    for arguments in (("get-item", "3"), ("get-user", "7"), ("stats",)):
        done = on_a_read_only_mount(tmp_path, arguments[0], url, *arguments[1:])
        assert (done.returncode, done.stderr) == (0, ""), arguments
        assert done.stdout


async def test_opened_for_reading_alone_it_refuses_writes(tmp_path: Path) -> None:
    url = await filled(tmp_path)
    store = await connect(url, read_only=True)
    assert (await store.history(7)).tolist() == [2, 1]
    with pytest.raises(StoreRefused, match="cannot be written"):
        await store.append(7, [3])
    with pytest.raises(StoreRefused, match="open in this process for reading alone"):
        await connect(url)
    await store.close()
    again = await connect(url)
    assert (await again.history(7)).tolist() == [2, 1]
    await again.close()
