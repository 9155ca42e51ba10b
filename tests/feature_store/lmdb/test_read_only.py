"""A store on a read-only mount, or of another user, is read all the same."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from feature_store.errors import StoreRefused
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.stores import connect
from tests.read_only_mount import read_only
from tests.service import unprivileged


async def filled(folder: Path) -> str:
    """A store of 5 items and the history of user 7 in ``folder``."""
    url = f"lmdb://{folder / 'store'}"
    store = await connect(url, SHOP, create=True)
    await store.put_items(ids(*range(1, 6)), random_rows(SHOP, 5))
    await store.append(7, [1, 2])
    await store.close()
    return url


def on_a_read_only_mount(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*read_only(folder), sys.executable, "-m", "feature_store", *arguments]
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


@pytest.mark.parametrize(
    ("closed", "mode", "reason"),
    [
        ("store/data.mdb", 0o000, "cannot be read by this user; stores are made with mode 0640"),
        (
            "store",
            0o600,
            "cannot be read by this user: a folder on the way there may not be entered",
        ),
    ],
)
def test_files_that_the_user_may_not_read_are_one_line_with_the_remedy(
    closed: str, mode: int, reason: str
) -> None:
    try:
        under = unprivileged.under()
    except unprivileged.Cannot as error:
        pytest.skip(str(error))
    # Not below tmp_path, which only its owner may enter.
    with tempfile.TemporaryDirectory() as folder:
        url = asyncio.run(filled(Path(folder)))
        Path(folder).chmod(0o755)
        (Path(folder) / closed).chmod(mode)
        environment = {**os.environ, "PYTHONPATH": unprivileged.LIBRARIES}
        command = [*under, sys.executable, "-m", "feature_store", "stats", url]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        (Path(folder) / closed).chmod(0o700)
    assert done.returncode == 1
    assert done.stderr.strip().startswith(f"error: {folder}/store/data.mdb: {reason}")
    assert done.stdout == ""
