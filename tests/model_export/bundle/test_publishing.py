"""Folders that bundles are written into: of a killed process they do not stay, nor do harm."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from model_export.bundle.publishing import LEFT_S, staging_folder


def left(models: Path, name: str, *, age_s: float = 2 * LEFT_S) -> Path:
    folder = models / name
    folder.mkdir()
    (folder / "ranker.onnx").write_bytes(b"half")
    then = time.time() - age_s
    os.utime(folder, (then, then))
    return folder


def test_what_killed_builds_left_is_removed_by_the_next(tmp_path: Path) -> None:
    old, earlier = left(tmp_path, ".v1.0a1b2c3d.partial"), left(tmp_path, ".v0.7.partial")
    with staging_folder(tmp_path, "v2") as folder:
        assert [path for path in (old, earlier) if path.exists()] == []
        assert list(tmp_path.iterdir()) == [folder]


def test_what_a_process_may_still_write_and_what_is_no_builds_stays(tmp_path: Path) -> None:
    held, young = left(tmp_path, ".v1.0a1b2c3d.partial"), left(tmp_path, ".v1.7.partial", age_s=0)
    own, link = left(tmp_path, ".notes.partial"), tmp_path / ".v1.8.partial"
    link.symlink_to(own)
    descriptor = os.open(held, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with staging_folder(tmp_path, "v2"):
            pass
    finally:
        os.close(descriptor)
    assert set(tmp_path.iterdir()) == {held, young, own, link}


def test_a_killed_build_is_repeated_by_a_process_of_the_same_number(tmp_path: Path) -> None:
    """In a container it is often the same."""
    left(tmp_path, f".v1.{os.getpid()}.partial", age_s=0)
    with staging_folder(tmp_path, "v1") as folder:
        assert folder.is_dir()


def test_a_folder_that_is_written_is_held(tmp_path: Path) -> None:
    with staging_folder(tmp_path, "v1") as folder:
        then = time.time() - 2 * LEFT_S
        os.utime(folder, (then, then))
        with staging_folder(tmp_path, "v2"):
            assert folder.is_dir()
