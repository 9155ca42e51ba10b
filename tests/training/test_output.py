"""What cannot be written, as on a full disk, is named by its file; nothing half written stays."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_store.parquet.columns import DataFileError
from tests.full_disk import files_of_at_most
from tests.training.test_levels import clicks_of
from tests.training.worlds import SIZES, SMALL
from training import checkpoint
from training.data.levels_file import write_levels
from training.data.row_cache import new_array
from training.qin import QIN


def test_the_state_of_a_run_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    from tests.training.fitting import RECIPE, run

    with pytest.raises(OSError, match="File too large") as failed, files_of_at_most(4096):
        run(tmp_path / "c", RECIPE.model_copy(update={"epochs": 1}))
    assert failed.value.filename == str(tmp_path / ".c.resume.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["c.metrics.jsonl"]


def test_a_checkpoint_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    torch.manual_seed(3)
    with pytest.raises(OSError, match="File too large") as failed, files_of_at_most(4096):
        checkpoint.save(tmp_path / "mine", QIN(SMALL, SIZES), {})
    assert failed.value.filename == str(tmp_path / "mine")
    assert list(tmp_path.iterdir()) == []


def test_levels_that_cannot_be_written_are_named_without_a_temporary_name(tmp_path: Path) -> None:
    clicks = clicks_of([(1, 0), (2, 90_000)])
    with pytest.raises(OSError, match="File too large") as failed, files_of_at_most(100):
        write_levels(clicks, tmp_path / "levels.parquet", "level")
    assert failed.value.filename == str(tmp_path / "levels.parquet")
    assert list(tmp_path.iterdir()) == []


def test_cached_rows_have_their_blocks_before_they_are_written(tmp_path: Path) -> None:
    """A write to a map without its blocks ends the process where the disk is full (SIGBUS)."""
    new_array(tmp_path / "a.npy", np.int64, (100_000,))
    found = (tmp_path / "a.npy").stat()
    assert found.st_blocks * 512 >= found.st_size > 800_000


def test_a_cache_without_room_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.training.test_users import IDS, SCHEMA, folder_of, user_columns
    from training.data.dataset import open_data

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = folder_of(tmp_path / "data", user_columns(IDS))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataFileError, match=r"No space left on device; .*--cache"):
        open_data(folder, SCHEMA, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
