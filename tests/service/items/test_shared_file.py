"""One table for the processes of a machine: shared, mended, and gone with its last user."""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.items import shared_file as table_file
from service.items.hash_index import ABSENT
from service.items.shared_file import TableFile, check_shared, remove_unused
from service.items.table import StaleSlots
from service.items.table_layout import CURSOR
from tests.service.items.shared_tables import (
    ITEMS,
    ROOM,
    array,
    assert_same,
    items,
    joined,
    news,
)
from tests.service.process import serving, start
from tests.service.test_private_directory import another_user
from tests.service.world import SMALL, World


def test_what_one_user_writes_the_other_reads(tmp_path: Path) -> None:
    mine = joined(tmp_path / "a.table")
    theirs = joined(tmp_path / "a.table", room=7)  # the first decides how large it is
    assert theirs.capacity == ROOM
    mine.insert(array([1, 2]), items([1, 2]))
    mine.cursor = "12-0"
    assert theirs.count == 2
    assert_same(theirs.columns.gather(theirs.find(array([1, 2]))), items([1, 2]))
    theirs.remove(array([1]))
    assert mine.find(array([1, 2])).tolist()[0] == ABSENT
    assert theirs.cursor is None  # each follows the log by itself
    theirs.joined()
    assert theirs.cursor == "12-0"


def test_a_cursor_half_written_by_a_killed_process_is_not_gone_on_from(tmp_path: Path) -> None:
    mine, theirs = joined(tmp_path / "a.table"), joined(tmp_path / "a.table")
    mine.cursor = "1700000000000-7"
    mine.memory.header[CURSOR] ^= 0x0100  # 1600000000000-7
    theirs.joined()
    assert theirs.cursor is None  # every item is read again
    mine.cursor = "1700000000000-8"
    theirs.joined()
    assert theirs.cursor == "1700000000000-8"


def test_it_is_gone_with_its_last_user_and_another_begins_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.table"
    mine, theirs = joined(path), joined(path)
    mine.insert(array([1]), items([1]))
    del mine
    gc.collect()
    assert path.exists()
    assert theirs.count == 1
    del theirs
    gc.collect()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["opening"]
    assert joined(path).count == 0


def test_what_a_killed_process_left_is_not_used_again(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from tests.service.items.shared_tables import array, items, joined
table = joined(Path(sys.argv[1]))
table.insert(array([1]), items([1]))
os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "a.table"
    ended = subprocess.run([sys.executable, "-c", program, str(path)], timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert path.exists()
    other = joined(tmp_path / "b.table")
    assert not path.exists()  # swept by the next one to open any
    assert joined(path).count == 0
    assert other.count == 0


WRITER = """
import sys
import numpy as np
from pathlib import Path
from tests.service.items.shared_tables import MOST_ID, array, items, joined
table = joined(Path(sys.argv[1]))
random = np.random.default_rng(int(sys.argv[2]))
print("began", flush=True)
while True:
    some = random.integers(0, MOST_ID, 8).tolist()
    table.insert(array(some), items(some), evict=True)
    table.remove(array(random.integers(0, MOST_ID, 1).tolist()))
"""


def test_processes_that_write_and_are_killed_never_spoil_what_others_read(tmp_path: Path) -> None:
    table = joined(tmp_path / "a.table")
    random = np.random.default_rng(9)
    for life in range(2):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(tmp_path / "a.table"), str(10 * life + n)],
                stdout=subprocess.PIPE,
            )
            for n in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        checked = 0
        while checked < 3000:
            asked = random.integers(0, 300, 32)
            slots, generations, _ = table.look_up(asked)
            there = slots != ABSENT
            try:
                rows = table.take(slots[there], generations[there])
            except StaleSlots:
                continue
            assert_same(rows, items(asked[there].tolist()))
            checked += int(there.sum())
        for writer in writers:
            writer.kill()
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
        more = random.integers(1000, 2000, 40).tolist()
        table.insert(array(more), items(more), evict=True)  # mends what they left
        assert table.count == len(table.ids()) <= ROOM


@pytest.mark.parametrize("wide", [0o777, 0o750])
def test_a_folder_of_ours_is_closed_to_others(tmp_path: Path, wide: int) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    folder.chmod(wide)
    table = joined(folder / "a.table")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert table.count == 0


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match=r"QIN_TABLE_FOLDER: .* is a symbolic link"):
        joined(tmp_path / "link" / "a.table")
    for check in (check_shared, remove_unused):
        with pytest.raises(OSError, match=r"QIN_TABLE_FOLDER: .* is a symbolic link"):
            check(tmp_path / "link")
    assert not list((tmp_path / "real").iterdir())


def linked(there: Path, target: Path) -> None:
    there.symlink_to(target)


def linked_hard(there: Path, target: Path) -> None:
    there.hardlink_to(target)


def fifo(there: Path, target: Path) -> None:
    os.mkfifo(there, 0o600)


def folder(there: Path, target: Path) -> None:
    there.mkdir()


def open_to_others(there: Path, target: Path) -> None:
    there.touch()
    there.chmod(0o622)


def of_another_user(there: Path, target: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("gives a file to another user")
    there.touch(0o600)
    os.chown(there, 65534, 65534)


@pytest.mark.parametrize("name", ["a.table", "a.write", "a.fill", "opening", "left.table"])
@pytest.mark.parametrize(
    "put", [linked, linked_hard, fifo, folder, open_to_others, of_another_user]
)
def test_a_file_that_the_service_did_not_make_is_refused_and_left_alone(
    tmp_path: Path, put: Callable[[Path, Path], None], name: str
) -> None:
    """Put there while the folder was open to others, for example."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    target.chmod(0o600)
    tables = tmp_path / "tables"
    tables.mkdir(0o700)
    put(tables / name, target)
    with pytest.raises(OSError, match=f"{name}: not a file that this service made.*remove it"):
        joined(tables / "a.table")
    assert target.read_bytes() == b"precious"
    assert (tables / name).lstat()


def test_a_table_cut_short_is_refused(tmp_path: Path) -> None:
    """Mapped, it would end the process when it is read."""
    path = tmp_path / "a.table"
    table = joined(path)
    os.truncate(path, 4096)
    with pytest.raises(OSError, match=r"a\.table: 4096 bytes are no whole item table; remove it"):
        joined(path)
    os.truncate(path, 0)
    with pytest.raises(OSError, match="0 bytes are no whole item table"):
        joined(path)
    del table
    gc.collect()
    assert not path.exists()  # the refused opener does not hold it


def test_an_opening_that_another_process_does_not_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_file, "OPEN_WITHIN_S", 0.1)
    assert joined(tmp_path / "a.table").count == 0
    with (tmp_path / "opening").open("r+") as opening:
        fcntl.flock(opening, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="opening: locked by another process"):
            joined(tmp_path / "b.table")
    assert joined(tmp_path / "b.table").count == 0


def test_tables_are_not_shared_where_stores_are_seen_out_of_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_file, "STORES_IN_ORDER", False)
    with pytest.raises(OSError, match="QIN_TABLE_FOLDER: item tables are shared on x86 alone"):
        joined(tmp_path / "a.table")


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_an_ordinary_user_has_tables_in_a_folder_of_its_own_alone() -> None:
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o777)
        (Path(parent) / "roots").mkdir(mode=0o777)
        with another_user():
            with pytest.raises(OSError, match="belongs to uid 0, and this process runs as uid"):
                joined(Path(parent) / "roots" / "a.table")
            own = joined(Path(parent) / "own" / "a.table")
            own.insert(array([1]), items([1]))
            assert joined(Path(parent) / "own" / "a.table").count == 1
            del own
        with pytest.raises(OSError, match="belongs to uid 65534, and this process runs as uid 0"):
            joined(Path(parent) / "own" / "a.table")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_service_does_not_start_on_a_folder_that_is_not_its_own(
    world: World, tmp_path: Path, workers: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    service = start(
        *("--bundle", str(world.models), "--store", world.store, "--workers", workers),
        QIN_TABLE_FOLDER=str(tmp_path / "link"),
    )
    assert service.process.wait(60) == 1
    said = service.log.read_text()
    service.remove()
    assert said.count("cannot serve: QIN_TABLE_FOLDER: ") == 1
    assert "is a symbolic link; name the directory itself" in said
    assert "Traceback" not in said


KEPT = """
import sys, time
import numpy as np
from pathlib import Path
from tests.service.items.shared_tables import ITEMS, array, items, joined, news
role, path, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
table, (stored, confirmed) = joined(path), news(path)
random = np.random.default_rng(seed)
print("began", flush=True)
while True:
    if role == "fetch":
        some, epoch = random.integers(0, ITEMS, 6), table.epoch
        read = stored[some].tolist()
        if random.random() < 0.3:
            time.sleep(0.001)
        table.keep(some, items(some.tolist(), read), epoch)
    else:
        item = int(random.integers(ITEMS))
        stored[item] += 1
        table.remove(array([item]), within=60)
        confirmed[item] = stored[item]
        time.sleep(0.0005)
"""


def test_no_reader_sees_an_older_row_than_was_confirmed_by_any_process(tmp_path: Path) -> None:
    """While two processes fetch, one changes, and one after the other is killed."""
    path, random = tmp_path / "a.table", np.random.default_rng(3)
    np.zeros((2, ITEMS), np.int64).tofile(path.with_suffix(".news"))
    table, (_, confirmed) = joined(path), news(path)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", KEPT, role, str(path), str(n)], stdout=subprocess.PIPE
        )
        for n, role in enumerate(["fetch", "fetch", "change"])
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == b"began\n"
        seen = 0
        for victim in children:
            before, checked = int(confirmed.sum()), 0
            while checked < 3000 or int(confirmed.sum()) < before + 100:
                asked = random.permutation(ITEMS)[:32]
                least = confirmed[asked]
                slots, generations, _ = table.look_up(asked)
                there = slots != ABSENT
                try:
                    rows = table.take(slots[there], generations[there])
                except StaleSlots:
                    continue
                change = rows.context[:, 0] // 1000
                assert (change >= least[there]).all()
                assert_same(rows, items(asked[there].tolist(), change.tolist()))
                seen, checked = seen + int(there.sum()), checked + len(asked)
            victim.kill()
        assert seen > 500
    finally:
        for child in children:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()


def test_a_folder_without_room_says_what_to_do_and_is_not_filled_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: pytest.fail("others find no room"))
    room = os.statvfs(tmp_path)
    rows = room.f_bavail * room.f_frsize // 100
    with pytest.raises(OSError, match="lower QIN_MAX_TABLE_ITEMS"):
        TableFile(tmp_path / "a.table", SMALL, rows)
    assert [path.name for path in tmp_path.iterdir()] == ["opening"]


def test_service_processes_share_one_table(world: World, tmp_path: Path) -> None:
    body = {"user_id": 3, "candidates": world.ids[:20].tolist()}
    folder = {"QIN_TABLE_FOLDER": str(tmp_path), "QIN_LOG_FORMAT": "json"}
    with serving(world.models, world.store, **folder) as first, first.client() as one:
        expected = one.post("/v1/score", json=body).json()["scores"]
        with serving(world.models, world.store, **folder) as second, second.client() as other:
            assert "item table filled" in first.log.read_text()
            assert "item table filled" not in second.log.read_text()
            assert "item table shared" in second.log.read_text()
            assert len(list(tmp_path.glob("*.table"))) == 1
            assert other.post("/v1/score", json=body).json()["scores"] == expected
            ready = other.get("/readyz").json()
            assert ready["items"] == len(world.ids)
        assert one.post("/v1/score", json=body).json()["scores"] == expected
    assert not list(tmp_path.glob("*.table"))
