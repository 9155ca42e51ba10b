"""Folders under a temporary name: of a killed process they do not stay, nor do harm."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from feature_store.temporary_folders import LEFT_S, temporary_folder
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
