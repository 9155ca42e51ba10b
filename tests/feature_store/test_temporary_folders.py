"""Folders under a temporary name: of a killed process they do not stay, nor do harm."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from feature_store import temporary_folders
from feature_store.temporary_folders import LEFT_S, replace_folder, temporary_folder
from model_export.bundle.publishing import staging_folder
from tests.model_export.schemas import SMALL, SMALL_SIZES
from training import checkpoint
from training.qin import QIN


def left(parent: Path, name: str, *, age_s: float = 2 * LEFT_S) -> Path:
    folder = parent / name
    folder.mkdir()
    (folder / "ranker.onnx").write_bytes(b"half")
    then = time.time() - age_s
    os.utime(folder, (then, then))
    return folder


def test_what_killed_processes_left_is_removed_by_the_next(tmp_path: Path) -> None:
    old = left(tmp_path, ".v1.0a1b2c3d.partial")
    with temporary_folder(tmp_path, "v2") as folder:
        assert not old.exists()
        assert list(tmp_path.iterdir()) == [folder]
    assert not folder.exists()


def test_what_may_still_be_written_and_what_is_something_else_stays(tmp_path: Path) -> None:
    held = left(tmp_path, ".v1.0a1b2c3d.partial")
    young = left(tmp_path, ".v1.1a1b2c3d.partial", age_s=0)
    own, link = left(tmp_path, ".notes.partial"), tmp_path / ".v1.2a1b2c3d.partial"
    link.symlink_to(own)
    descriptor = os.open(held, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with temporary_folder(tmp_path, "v2"):
            pass
    finally:
        os.close(descriptor)
    assert set(tmp_path.iterdir()) == {held, young, own, link}


def test_one_that_is_written_is_held(tmp_path: Path) -> None:
    with temporary_folder(tmp_path, "v1") as folder:
        then = time.time() - 2 * LEFT_S
        os.utime(folder, (then, then))
        with temporary_folder(tmp_path, "v2"):
            assert folder.is_dir()


def publish(out: Path) -> None:
    with staging_folder(out, "v1"):
        pass


def save(out: Path) -> None:
    checkpoint.save(out / "v1", QIN(SMALL, SMALL_SIZES), {})


@pytest.mark.parametrize("write", [publish, save])
def test_bundles_and_checkpoints_of_killed_processes_are_removed(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    old = left(tmp_path, ".v1.0a1b2c3d.partial")
    write(tmp_path)
    assert not old.exists()


def test_a_killed_build_is_repeated_by_a_process_of_the_same_number(tmp_path: Path) -> None:
    """In a container it is often the same."""
    left(tmp_path, f".v1.{os.getpid()}.partial", age_s=0)
    with staging_folder(tmp_path, "v1") as folder:
        assert folder.is_dir()


REPLACE = """
import sys
from pathlib import Path
from feature_store.temporary_folders import replace_folder, temporary_folder
final = Path(sys.argv[1])
for number in range(1_500):
    with temporary_folder(final.parent, "v1") as new:
        (new / "config").write_text(str(number))
        replace_folder(new, final)
"""


def test_a_folder_that_is_replaced_is_never_absent(tmp_path: Path) -> None:
    """Else a kill in between would leave none."""
    final = tmp_path / "v1"
    final.mkdir()
    absent = 0
    with subprocess.Popen([sys.executable, "-c", REPLACE, str(final)]) as replacing:
        while replacing.poll() is None:
            absent += sum(not final.exists() for _ in range(1_000))
    assert (replacing.returncode, absent) == (0, 0)
    assert (final / "config").read_text() == "1499"
    assert list(tmp_path.iterdir()) == [final]


@pytest.mark.parametrize("there", [False, True])
def test_a_file_system_without_exchange_replaces_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    def refuse(*_: Path) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(temporary_folders, "_exchange", refuse)
    final = tmp_path / "v1"
    if there:
        left(tmp_path, "v1")
    with temporary_folder(tmp_path, "v1") as new:
        (new / "config").write_text("new")
        replace_folder(new, final)
    assert [path.name for path in final.iterdir()] == ["config"]
    assert list(tmp_path.iterdir()) == [final]
