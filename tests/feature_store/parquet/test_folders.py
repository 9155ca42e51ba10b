"""Folders of files: what is in them is read whole, or refused."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from feature_store.parquet.columns import DataFileError
from feature_store.parquet.histories import HistoryParquet
from feature_store.parquet.table import files_of
from tests.feature_store.parquet_samples import write

OWNER = 10001
# Root's own capabilities open every folder.
WITHOUT = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
PROGRAM = "import sys, pathlib; from feature_store.parquet.table import files_of; "
PROGRAM += "files_of(pathlib.Path(sys.argv[1]))"


@pytest.mark.skipif(
    not (shutil.which("setpriv") or os.geteuid()), reason="setpriv is missing (util-linux)"
)
@pytest.mark.parametrize("below", ["", "dt=2026-11-30"])
def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, below: str
) -> None:
    folder = tmp_path / "in"
    (folder / below).mkdir(parents=True)
    for place in (folder, folder / below):
        (place / "a.parquet").touch()
    if WITHOUT:
        os.chown(folder / below, OWNER, OWNER)
    (folder / below).chmod(0)
    try:
        words = [*WITHOUT, sys.executable, "-c", PROGRAM, str(folder)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    finally:
        (folder / below).chmod(0o700)
    line = f"{folder / below}: the folder cannot be read: Permission denied"
    assert done.stderr.splitlines()[-1].endswith(f"DataFileError: {line}")


def test_hidden_files_and_folders_hold_no_rows_but_linked_files_do(tmp_path: Path) -> None:
    names = ["b.parquet", "a.parquet", "x/c.parq", "_x/d.parquet", ".x/e.parquet", "_f.parquet"]
    names += ["_dt=1/g.parquet", "h.txt", "y.parquet/i.parquet"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link.parquet").symlink_to(tmp_path / "h.txt")
    (tmp_path / "x" / "loop").symlink_to(tmp_path)
    found = [str(path.relative_to(tmp_path)) for path in files_of(tmp_path)]
    assert found == ["_dt=1/g.parquet", "a.parquet", "b.parquet", "link.parquet", "x/c.parq",
                     "y.parquet/i.parquet"]  # fmt: skip


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A folder of 40 parts."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(40):
        write(folder / f"part-{number:02d}.parquet", {"user_id": [number], "item_seq": [[1]]})
    return folder


def test_the_limit_on_open_files_is_raised_for_a_folder_of_many_parts(many: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, before[1]))
    try:
        assert HistoryParquet(many).rows == 40
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_parts_than_may_be_open_are_refused_with_the_remedy(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    with pytest.raises(DataFileError, match="has 40 parts, and this process may open 100 files"):
        HistoryParquet(many)


def test_paths_that_are_not_utf_8_are_refused_in_one_line(tmp_path: Path) -> None:
    named = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.parquet"))
    write(tmp_path / "whole.parquet", {"user_id": [1], "item_seq": [[1]]}).rename(named)
    with pytest.raises(DataFileError, match="its name is not UTF-8; rename it"):
        HistoryParquet(named)
