"""Input by ``file://``: its paths begin with a slash, those of S3 do not."""

from __future__ import annotations

from pathlib import Path

from tests.batch.command import parts, score, scored
from tests.batch.inputs import make_lists, write
from tests.service.world import World


def test_the_output_is_that_of_the_path(world: World, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    source = write(make_lists(world, 20).table(), tmp_path / "in" / "a.parquet")
    here, there = tmp_path / "here", tmp_path / "there"
    scored(world, source.parent, here)
    done = score(world, f"file://{source.parent}", there)
    assert done.returncode == 0, done.stderr
    assert [p.read_bytes() for p in parts(there)] == [p.read_bytes() for p in parts(here)]
