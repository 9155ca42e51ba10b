"""A run reads its store: it may be on a read-only mount, or another user's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.batch.command import line, read
from tests.batch.inputs import make_lists, write
from tests.feature_store.lmdb.test_read_only import READ_ONLY
from tests.service.world import World


def test_a_run_needs_no_permission_to_write_to_its_store(world: World, tmp_path: Path) -> None:
    source = write(make_lists(world, 20).table(), tmp_path / "in.parquet")
    mounted = (*READ_ONLY, world.store.removeprefix("lmdb://"))
    tried = subprocess.run([*mounted, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no mount of one's own here: {tried.stderr.strip()}")
    words = [*mounted, *line(world, source, tmp_path / "out", "--workers", "1")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(read(tmp_path / "out")) == 20
