"""A run reads its store: it may be on a read-only mount, or another user's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.batch.command import line, read
from tests.batch.inputs import make_lists, write
from tests.read_only_mount import read_only
from tests.service.world import World


def test_a_run_needs_no_permission_to_write_to_its_store(world: World, tmp_path: Path) -> None:
    source = write(make_lists(world, 20).table(), tmp_path / "in.parquet")
    mounted = read_only(world.store.removeprefix("lmdb://"))
    words = [*mounted, *line(world, source, tmp_path / "out", "--workers", "1")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(read(tmp_path / "out")) == 20
