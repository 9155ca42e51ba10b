"""Input by ``file://``: its paths begin with a slash, those of S3 do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch.inputs.remote_tables import MOST_ALONE
from batch.inputs.stamps import stamps_now, stamps_of
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


@pytest.mark.parametrize("count", [1, MOST_ALONE, MOST_ALONE + 1])
def test_files_that_are_listed_have_the_stamps_that_each_alone_has(
    tmp_path: Path, count: int
) -> None:
    for number in range(count):
        (tmp_path / f"{number:02}.parquet").write_bytes(b"x" * number)
    url = f"file://{tmp_path}"
    before = stamps_of(url)
    assert [stamp and stamp[0] for stamp in before.values()] == list(range(count))
    assert [stamps_now(url, [path]) for path in before] == [{p: s} for p, s in before.items()]
    (tmp_path / "00.parquet").unlink()
    (tmp_path / "new.parquet").write_bytes(b"x")
    now = stamps_now(url, list(before))
    assert list(now.values()) == [None, *list(before.values())[1:]]
