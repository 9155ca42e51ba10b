"""What a run of `text embed` left, and its earlier table, count only as they were written."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from feature_store.parquet.columns import DataFileError
from tests.text.content.conftest import FEATURE
from tests.text.content.test_embed import Stopped, mapped, small_pieces, stopping_at
from text.__main__ import app
from text.content.embed import Embedding
from text.content.items import ItemTexts
from text.runtime.encoder import TextEncoder
from training.loop.run_lock import alone

__all__ = ["mapped", "small_pieces"]  # fixtures


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 4
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def exchanged(file: Path) -> None:
    """Give two pieces each other's content."""
    other = sorted(file.parent.glob("piece-*"))[0]
    first, second = other.read_bytes(), file.read_bytes()
    other.write_bytes(second)
    file.write_bytes(first)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("damage", [flipped, cut, exchanged, Path.unlink])
def test_a_piece_that_is_not_as_it_was_written_is_made_again(
    mapped: TextEncoder,
    catalogue: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    place: int,
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    report = Embedding(mapped, catalogue, whole, []).run()
    with pytest.raises(Stopped):
        Embedding(mapped, catalogue, out, []).run(stopping_at(3 * 64))
    damage(sorted((tmp_path / ".out.run").glob("piece-*"))[place])
    assert Embedding(mapped, catalogue, out, []).run() == report
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("place", [0.1, 0.2, 0.3, 0.4])
def test_a_flipped_bit_of_the_earlier_table_is_not_taken_over(
    mapped: TextEncoder, catalogue: Path, tmp_path: Path, place: float
) -> None:
    out = tmp_path / "out.parquet"
    Embedding(mapped, catalogue, out, []).run()
    group = pq.read_metadata(out).row_group(0)
    leaves = [group.column(i) for i in range(group.num_columns)]
    column = next(leaf for leaf in leaves if leaf.path_in_schema.startswith(f"{FEATURE}."))
    content = bytearray(out.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start + int(place * column.total_compressed_size)] ^= 1
    out.write_bytes(content)
    with pytest.raises(DataFileError, match=rf"out\.parquet: column {FEATURE}: damaged: .*delete"):
        Embedding(mapped, catalogue, out, []).run()


def test_what_cannot_be_read_is_not_told_as_what_cannot_be_written(
    content_bundle: Path, catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error", str(catalogue))

    monkeypatch.setattr(ItemTexts, "batches", failing)
    words = ["embed", str(content_bundle), str(catalogue), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert f"error: {catalogue}: Input/output error" in done.stderr


def test_two_processes_are_not_at_one_table(
    content_bundle: Path, catalogue: Path, tmp_path: Path
) -> None:
    words = ["embed", str(content_bundle), str(catalogue), "--out", str(tmp_path / "out")]
    with alone(tmp_path / ".out.lock", AssertionError()):
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "out: another process is at this table" in done.stderr
    assert CliRunner().invoke(app, words).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("command", [("embed",), ("content", "fit")])
@pytest.mark.parametrize("out", [".", "/"])
def test_a_folder_as_the_file_to_write_is_refused_before_a_text_is_encoded(
    content_bundle: Path, catalogue: Path, command: tuple[str, ...], out: str
) -> None:
    done = CliRunner().invoke(app, [*command, str(content_bundle), str(catalogue), "--out", out])
    assert done.exit_code == 2
    said = " ".join(done.stderr.replace("│", "").split())
    assert f"--out {out} is a folder; give a file in it" in said
