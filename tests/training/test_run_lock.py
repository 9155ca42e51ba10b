"""Of the processes at one run one trains, and one that was killed does not stand in the way."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.fitting import RECIPE, run
from training.loop.run import FitError
from training.loop.run_lock import alone

HOLDS = """
import sys, time
from pathlib import Path
from training.loop.run_lock import alone
with alone(Path(sys.argv[1]), ValueError()):
    print("held", flush=True)
    time.sleep(600)
"""
BUSY = FitError("busy")


def test_a_run_is_not_trained_by_two_processes_at_once(tmp_path: Path) -> None:
    """One would write into the partial state of the other."""
    recipe = RECIPE.model_copy(update={"epochs": 2})
    refused: list[str] = []

    def another(what: str, done: int, total: int) -> None:
        if what.startswith("epoch 2 ") and not refused:
            with pytest.raises(FitError, match="c: another process is at this run") as error:
                run(tmp_path / "c", recipe)
            refused.append(str(error.value))

    run(tmp_path / "c", recipe, another)
    assert refused
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_killed_process_holds_a_lock_no_longer(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, lock], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(FitError, match="busy"), alone(lock, BUSY):
            pass
        assert lock.exists()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with alone(lock, BUSY):
        pass
    assert not lock.exists()


def test_a_lock_that_was_removed_by_its_process_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two processes would hold one of the same name: of a file that is no more, and a new."""
    lock, locked = tmp_path / "lock", fcntl.flock

    def removed_meanwhile(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", locked)
        lock.unlink()
        locked(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with alone(lock, BUSY), pytest.raises(FitError, match="busy"), alone(lock, BUSY):
        pass


def test_a_file_system_without_locks_is_worked_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", without)
    with alone(tmp_path / "lock", BUSY):
        pass
    with alone(tmp_path / "no folder" / "lock", BUSY):
        pass
