"""What killed processes leave is found and removed, and what lives is left alone."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest

from service.processes import run_folder
from tests.service.process import serving
from tests.service.processes.test_workers import is_alive, ready_lines, wait_until, workers_of
from tests.service.world import World


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run_folder, "MEMORY", tmp_path)
    return tmp_path


def test_folders_of_killed_runs_are_removed_and_no_others(memory: Path) -> None:
    left, new, foreign = (memory / name for name in ("qin-run-left", "qin-new-one", "qin-other"))
    for folder in (left, new, foreign):
        folder.mkdir()
        (folder / "0.metrics").touch()
    (memory / "qin-run-link").symlink_to(foreign, target_is_directory=True)
    with run_folder.run_folder() as ours:
        (ours / "0.metrics").touch()
        run_folder.remove_left()
        assert {path.name for path in memory.iterdir()} == {
            *("qin-new-one", "qin-other", "qin-run-link"),
            ours.name,
        }
    assert not ours.exists()
    assert (foreign / "0.metrics").exists()


def folder_of(pid: int) -> Path:
    """Of the run whose supervisor this is, by the descriptor that locks it. Others may run too."""
    opened = [file.readlink() for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()]
    (folder,) = {path for path in opened if path.name.startswith(run_folder.NAME)}
    return folder


def test_a_killed_service_leaves_nothing_after_the_next_start(world: World, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    variables = {"QIN_WORKERS": "2", "QIN_TABLE_FOLDER": str(tables)}
    with serving(world.models, world.store, **variables) as service:
        wait_until(lambda: ready_lines(service) == 2, "not all workers are ready")
        left, folder = workers_of(service), folder_of(service.process.pid)
        assert folder.exists()
        os.kill(left[0], signal.SIGSTOP)
        service.process.kill()
        wait_until(lambda: not any(map(is_alive, left)), "a worker goes on")
    assert list(tables.glob("*.table"))
    with serving(world.models, world.store, QIN_PRIVATE=str(tmp_path / "private"), **variables):
        assert not folder.exists()
        (table,) = tables.glob("*.table")
        with table.open("rb") as file, pytest.raises(BlockingIOError):  # a new one, in use
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not list(tables.glob("*.table"))
