"""A bundle that a full disk cuts off is named in one line, and absent."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from model_export.__main__ import app
from model_export.bundle.errors import BundleError
from model_export.bundle.publishing import staging_folder
from tests.full_disk import files_of_at_most


@pytest.mark.parametrize("size", [64, 4096, 20_000])
def test_a_bundle_that_cannot_be_written_is_named_and_absent(tmp_path: Path, size: int) -> None:
    out = tmp_path / "models"
    with files_of_at_most(size):
        done = CliRunner().invoke(app, ["build", "--random", "--out", str(out), "--version", "v1"])
    assert done.exit_code == 1
    assert f"error: {out / 'v1'}: cannot be written: File too large" in done.output
    assert not list(out.iterdir())


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "elsewhere")
    with pytest.raises(OSError, match="elsewhere"), staging_folder(tmp_path, "v1"):
        raise full
    full.filename = None
    said = "v1: cannot be written: No space left on device"
    with pytest.raises(BundleError, match=said), staging_folder(tmp_path, "v1"):
        raise full
    assert not list(tmp_path.iterdir())
