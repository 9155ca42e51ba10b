"""A table gets its content; what did not change is not encoded again; a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from feature_store.parquet.columns import DataFileError
from model_export.bundle.errors import BundleError
from tests.full_disk import files_of_at_most
from tests.text.content.conftest import FEATURE, ITEMS, SIZE
from text.__main__ import app
from text.content import embed as embed_module
from text.content.embed import Embedding
from text.content.items import EncodedItems, ItemBatch, encode
from text.runtime.content import ContentMap
from text.runtime.encoder import TextEncoder

Values = np.ndarray[Any, np.dtype[np.float32]]


@pytest.fixture(scope="module")
def mapped(content_bundle: Path) -> TextEncoder:
    return TextEncoder.open(content_bundle)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed_module, "PIECE", 64)
    monkeypatch.setattr(embed_module, "JOINED", 3)


def values(path: Path) -> Values:
    column = pq.read_table(path)[FEATURE].combine_chunks()
    array: Values = column.flatten().to_numpy().reshape(-1, SIZE)
    return array


class Stopped(Exception):
    """A run that ends between two pieces."""


def stopping_at(rows: int) -> Callable[[int], None]:
    def advance(done: int) -> None:
        if done >= rows:
            raise Stopped

    return advance


def test_every_item_gets_the_content_of_what_it_has(
    mapped: TextEncoder, catalogue: Path, content: ContentMap, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    report = Embedding(mapped, catalogue, out, []).run()
    before, after = pq.read_table(catalogue), pq.read_table(out)
    assert after.drop_columns(after.column_names[-3:]).equals(before.drop_columns([FEATURE]))
    found, rows = values(out), before.to_pylist()
    texts = [[t for t in (row["text_en"], row["text_de"]) if t] for row in rows]
    for row, own, value in zip(rows, texts, found, strict=True):
        vectors: dict[str, Any] = {}
        if own:
            vectors["text"] = mapped.encode(own).vectors.astype(np.float64).mean(0)[None]
        if row["image"]:
            vectors["image"] = np.array(row["image"], np.float32)[None]
        expected = content.content(vectors)[0] if vectors else np.zeros(SIZE)
        assert np.abs(value - expected).max() < 2e-5
    without = sum(not own and not row["image"] for row, own in zip(rows, texts, strict=True))
    assert 0 < without == report.without
    assert (report.items, report.encoded) == (ITEMS, ITEMS - without)
    digests = after[f"{FEATURE}_digest"]
    assert digests.null_count == without
    assert digests.unique().drop_null().to_pylist() == [mapped.content_digest]


def test_only_changed_rows_are_encoded(
    mapped: TextEncoder, catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, items = tmp_path / "out.parquet", tmp_path / "items.parquet"
    first = Embedding(mapped, catalogue, out, []).run()
    written, before = out.read_bytes(), values(out)
    again = Embedding(mapped, catalogue, out, []).run()
    assert (again.encoded, again.unchanged) == (0, first.encoded)
    assert out.read_bytes() == written

    table = pq.read_table(catalogue)
    german = table["text_de"].to_pylist()
    german[5], german[300] = "das niño", None if german[300] else "under"
    order = np.random.default_rng(0).permutation(ITEMS)
    changed = table.set_column(2, "text_de", pa.array(german)).take(order)
    pq.write_table(changed, items)
    seen = []

    def counted(encoder: TextEncoder, batch: ItemBatch) -> EncodedItems:
        seen.append(len(batch))
        return encode(encoder, batch)

    monkeypatch.setattr(embed_module, "encode", counted)
    report = Embedding(mapped, items, out, []).run()
    assert (report.encoded, sum(seen)) == (2, 2)
    same = np.isin(order, [5, 300], invert=True)
    assert (values(out)[same] == before[order[same]]).all()


def test_another_map_is_another_content(
    mapped: TextEncoder, catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    first = Embedding(mapped, catalogue, out, []).run()
    other = Embedding(mapped, catalogue, out, [])
    other.digest = "0123456789abcdef"
    assert other.run().encoded == first.encoded


@pytest.mark.parametrize("group", [50, 64, 1000])  # rows of a group of the file
def test_a_stopped_run_goes_on_to_the_same_bytes(
    mapped: TextEncoder, catalogue: Path, tmp_path: Path, group: int
) -> None:
    items, whole, out = (tmp_path / name for name in ("items.parquet", "whole", "out"))
    pq.write_table(pq.read_table(catalogue), items, row_group_size=group)
    report = Embedding(mapped, items, whole, []).run()
    for rows in (64, 65, 65, 193, ITEMS):
        with pytest.raises(Stopped):
            Embedding(mapped, items, out, []).run(stopping_at(rows))
        assert not out.exists()
    resumed = Embedding(mapped, items, out, []).run()
    assert out.read_bytes() == whole.read_bytes()
    assert resumed == report
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.parquet", "out", "whole"]


def test_pieces_of_other_items_are_not_taken(
    mapped: TextEncoder, catalogue: Path, tmp_path: Path
) -> None:
    items, out = tmp_path / "items.parquet", tmp_path / "out"
    table = pq.read_table(catalogue)
    pq.write_table(table, items)
    with pytest.raises(Stopped):
        Embedding(mapped, items, out, []).run(stopping_at(128))
    pq.write_table(table.slice(7), items)
    assert Embedding(mapped, items, out, []).run().items == ITEMS - 7
    assert pq.read_table(out)["item_id"].to_pylist() == table["item_id"].to_pylist()[7:]


def test_the_parts_of_a_folder_are_one_table(
    mapped: TextEncoder, catalogue: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    table = pq.read_table(catalogue)
    nothing = table.slice(0, 70).set_column(2, "text_de", pa.nulls(70))  # of the type null
    pq.write_table(nothing, folder / "a.parquet")
    pq.write_table(table.slice(70), folder / "b.parquet")
    report = Embedding(mapped, folder, tmp_path / "out", []).run()
    assert report.items == ITEMS
    assert pq.read_table(tmp_path / "out")["item_id"].equals(table["item_id"])


def test_what_cannot_be_embedded_is_named(
    encoder: TextEncoder, mapped: TextEncoder, catalogue: Path, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="has no map to content; build it with"):
        Embedding(encoder, catalogue, tmp_path / "out", [])
    with pytest.raises(DataFileError, match="the items themselves"):
        Embedding(mapped, catalogue, catalogue, [])
    other = tmp_path / "other.parquet"
    pq.write_table(pq.read_table(catalogue).select(["item_id"]), other)
    with pytest.raises(DataFileError, match=r"other.parquet: exists, and is no table of"):
        Embedding(mapped, catalogue, other, [])
    images = [[1.0, 2.0]] * ITEMS
    wrong = pq.read_table(catalogue).set_column(3, "image", pa.array(images))
    pq.write_table(wrong, tmp_path / "wrong.parquet")
    with pytest.raises(DataFileError, match="row 0, column image: 2 values instead of 5"):
        Embedding(mapped, tmp_path / "wrong.parquet", tmp_path / "out", []).run()


@pytest.mark.parametrize(
    "other",
    [["red"] * ITEMS, [[1.0, 2.0]] * ITEMS, [[float("nan")] * 8] * ITEMS, [None] * ITEMS],
)
def test_an_earlier_table_whose_content_was_changed_is_named(
    mapped: TextEncoder, catalogue: Path, tmp_path: Path, other: list[Any]
) -> None:
    out = tmp_path / "out.parquet"
    Embedding(mapped, catalogue, out, []).run()
    table = pq.read_table(out)
    assert isinstance(table[FEATURE].to_pylist()[0], list)
    place = table.schema.get_field_index(FEATURE)
    pq.write_table(table.set_column(place, FEATURE, pa.array(other)), out)
    with pytest.raises(DataFileError, match=rf"out\.parquet: column {FEATURE} holds .* delete"):
        Embedding(mapped, catalogue, out, []).run()


def test_a_text_without_tokens_is_none(
    mapped: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = mapped.tokenizer.encode

    def without(texts: list[str], longest: int) -> Any:
        return tokens(["" if text == "\u200b" else text for text in texts], longest)

    monkeypatch.setattr(mapped.tokenizer, "encode", without)  # as WordPiece drops characters
    pq.write_table(pa.table({"text": ["\u200b", "tree"]}), tmp_path / "items.parquet")
    report = Embedding(mapped, tmp_path / "items.parquet", tmp_path / "out", []).run()
    assert (report.encoded, report.without) == (1, 1)
    assert not values(tmp_path / "out")[0].any()


@pytest.mark.parametrize("other", [["red"] * ITEMS, [7] * ITEMS, [b"short"] * ITEMS])
def test_an_earlier_table_whose_digests_were_changed_is_named(
    mapped: TextEncoder, catalogue: Path, tmp_path: Path, other: list[Any]
) -> None:
    out = tmp_path / "out.parquet"
    Embedding(mapped, catalogue, out, []).run()
    table, column = pq.read_table(out), f"{FEATURE}_source"
    place = table.schema.get_field_index(column)
    pq.write_table(table.set_column(place, column, pa.array(other)), out)
    with pytest.raises(DataFileError, match=rf"out\.parquet: column {column} holds .* delete"):
        Embedding(mapped, catalogue, out, [])


def parts(folder: Path, *columns: pa.Array) -> Path:
    """Write a part of a folder of items for each column ``other``, of a hundred rows."""
    folder.mkdir()
    for number, column in enumerate(columns):
        table = pa.table({"text": ["a tree", "das Haus"] * 50, "other": column})
        pq.write_table(table, folder / f"part-{number}.parquet")
    return folder


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ([pa.array(range(100), pa.int32()), pa.array(range(100), pa.int64())], pa.int64()),
        ([pa.array(range(100), pa.int64()), pa.array([0.5, None] * 50)], pa.float64()),
        ([pa.nulls(100), pa.array(["red"] * 100)], pa.string()),
        (
            [pa.array([[1.5]] * 100, pa.list_(pa.float32())), pa.array([[1.5]] * 100)],
            pa.list_(pa.float64()),
        ),
    ],
)
def test_parts_may_differ_in_the_width_of_a_carried_column(
    mapped: TextEncoder, tmp_path: Path, columns: list[pa.Array], kind: pa.DataType
) -> None:
    """As pandas writes them: a part with a missing value has floats for integers."""
    folder = parts(tmp_path / "items", *columns)
    Embedding(mapped, folder, tmp_path / "out.parquet", []).run()
    found = pq.read_table(tmp_path / "out.parquet")["other"]
    assert found.type == kind
    assert found.to_pylist() == [value for column in columns for value in column.to_pylist()]


def test_parts_whose_columns_are_of_two_kinds_are_named_before_a_row_is_encoded(
    mapped: TextEncoder, tmp_path: Path
) -> None:
    folder = parts(tmp_path / "items", pa.array(range(100)), pa.array(["red"] * 100))
    with pytest.raises(DataFileError, match=r"part-1\.parquet: column other is string, and int64"):
        Embedding(mapped, folder, tmp_path / "out.parquet", [])


def test_a_number_that_another_part_cannot_hold_is_not_rounded(
    mapped: TextEncoder, tmp_path: Path
) -> None:
    folder = parts(tmp_path / "items", pa.array([2**53 + 1] * 100), pa.array([0.5] * 100))
    with pytest.raises(DataFileError, match=r"column other, rows from 0: .+ alike in every part"):
        Embedding(mapped, folder, tmp_path / "out.parquet", []).run()


def test_a_table_within_the_folder_of_the_items_is_refused(
    mapped: TextEncoder, tmp_path: Path
) -> None:
    """The next run would read it as a part, and have every item twice."""
    folder = parts(tmp_path / "items", pa.array(range(100)))
    with pytest.raises(DataFileError, match=r"content: within .+items, the folder of the items"):
        Embedding(mapped, folder, folder / "content", [])
    Embedding(mapped, folder, tmp_path / "items.parquet", []).run()


def test_a_table_that_cannot_be_written_is_named(
    content_bundle: Path, catalogue: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    with files_of_at_most(1000):
        done = CliRunner().invoke(
            app, ["embed", str(content_bundle), str(catalogue), "--out", str(out)]
        )
    assert done.exit_code == 1
    assert f"error: {out}: File too large" in done.stderr
    assert not out.exists()


def test_a_link_stays_one_and_its_table_is_gone_on_with(
    mapped: TextEncoder, catalogue: Path, tmp_path: Path
) -> None:
    (tmp_path / "kept").mkdir()
    link, table = tmp_path / "out.parquet", tmp_path / "kept" / "table.parquet"
    link.symlink_to(table)
    Embedding(mapped, catalogue, link, []).run()
    assert link.readlink() == table
    assert pq.read_metadata(table).num_rows == ITEMS
    assert Embedding(mapped, catalogue, link, []).run().encoded == 0
    assert link.readlink() == table
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept", link.name, table.name]


def test_the_command_embeds(content_bundle: Path, catalogue: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out.parquet")
    words = ["embed", str(content_bundle), str(catalogue), "--out", out]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["items"], report["feature"]) == (ITEMS, FEATURE)
    again = CliRunner().invoke(app, words)
    assert "0 encoded" in again.output
    assert report["digest"] in again.output
    failed = CliRunner().invoke(app, [*words, "--store", f"lmdb://{tmp_path}/none"])
    assert failed.exit_code == 1
    assert "error" in failed.output
