"""What a command writes besides the store: to a device, through a link, to a full disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.feature_store.parquet.test_check_export import changing
from tests.feature_store.parquet.test_load import IDS, files, run

__all__ = ["files"]  # a fixture


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """In place of /dev/null, which a test must not risk: no file may take the place of either."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    yield path, descriptor
    os.close(descriptor)


@pytest.fixture
def url(tmp_path: Path, files: list[Any]) -> str:
    url = f"lmdb://{tmp_path}/store"
    assert run("load", url, *files).exit_code == 0
    return url


def test_check_without_differences_leaves_a_device_in_place(
    url: str, files: list[Any], pipe: tuple[Path, int]
) -> None:
    path, _ = pipe
    assert run("check", url, *files[2:6], "--differences", path).exit_code == 0
    assert path.is_fifo()


def test_differences_and_rejected_rows_are_written_to_a_device(
    url: str, files: list[Any], pipe: tuple[Path, int]
) -> None:
    path, descriptor = pipe
    changing(url, lambda store: store.delete_items(IDS[:1]))
    assert run("check", url, *files[2:6], "--differences", path).exit_code == 3
    assert json.loads(os.read(descriptor, 1 << 16)) == {
        "kind": "item",
        "id": int(IDS[0]),
        "what": "missing",
    }
    items = files[2:4]
    loaded = run("load", url, *items, *items, "--rejects", path)
    assert loaded.exit_code == 3, loaded.stderr
    assert b"repeated" in os.read(descriptor, 1 << 16)
    assert path.is_fifo()


def test_a_link_stays_and_its_file_is_emptied(tmp_path: Path, url: str, files: list[Any]) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("of an earlier load")
    link.symlink_to(file)
    assert run("load", url, *files[2:6], "--rejects", link).exit_code == 0
    assert (link.readlink(), file.read_text()) == (file, "")


@pytest.mark.parametrize("more", [(), ("--json",)])
@pytest.mark.parametrize("command", ["load", "check", "stats", "export", "get-user"])
def test_a_stdout_that_takes_no_more_is_said_in_one_line(
    tmp_path: Path, url: str, files: list[Any], command: str, more: tuple[str, ...]
) -> None:
    arguments = {
        "load": files[2:6],
        "check": [*files[2:6], "--differences", tmp_path / "differences"],
        "export": [tmp_path / "export", "--id-column", "number"],
        "get-user": [7],
    }
    words = [command, url, *arguments.get(command, []), *more]
    buffered = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "feature_store", *map(str, words)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            env=buffered,
        )
    assert done.returncode == 1
    assert done.stderr.endswith("error: stdout: No space left on device\n")
    assert "Traceback" not in done.stderr


def test_an_output_whose_name_is_not_utf_8_is_refused_in_one_line(tmp_path: Path, url: str) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    told = run("export", url, folder, "--id-column", "number")
    assert told.exit_code == 1
    assert "not UTF-8; give another name" in told.stderr
