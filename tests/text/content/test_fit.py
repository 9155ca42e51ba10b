"""Maps are fitted to what items have; a missing modality is left out, not replaced."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from feature_store.parquet.columns import DataFileError
from model_export.bundle.errors import BundleError
from tests.full_disk import files_of_at_most
from tests.text.content.conftest import FEATURE, IMAGE, ITEMS, SIZE
from text.__main__ import app
from text.content.fit import fit
from text.content.items import ItemTexts, encode
from text.runtime.content import ContentMap, content_digest
from text.runtime.encoder import TextEncoder


def test_a_ridge_finds_the_planted_map_for_each_combination(content: ContentMap) -> None:
    parts = {part.has: part for part in content.about.parts}
    assert set(parts) == {("text",), ("image",), ("text", "image")}
    assert parts["text", "image"].r2 > 0.999  # type: ignore[operator]
    assert parts["text",].r2 < parts["text", "image"].r2  # type: ignore[operator]
    assert parts["text",].items > parts["text", "image"].items


def test_items_are_mapped_to_their_feature_by_what_they_have(
    encoder: TextEncoder, catalogue: Path, content: ContentMap
) -> None:
    (batch,) = ItemTexts(catalogue, (), ["image", FEATURE]).batches(ITEMS)
    encoded = encode(encoder, batch)
    both = encoded.has["text"] & encoded.has["image"]
    found = content.content({n: encoded.vectors[n][both] for n in ("image", "text")})
    scale = encoded.vectors[FEATURE].std()
    assert np.abs(found - encoded.vectors[FEATURE][both]).max() < 0.05 * scale
    fitted = encoded.vectors[FEATURE][encoded.has["text"] | encoded.has["image"]]
    assert np.allclose(content.mean, fitted.mean(0))
    assert np.allclose(content.scale, fitted.std(0))


def test_an_empty_text_is_no_text(encoder: TextEncoder, tmp_path: Path) -> None:
    texts = ["a tree", "a tree", "a tree", None, "", " \n"]
    others = [None, "", "a tree", "a tree", None, " "]
    table = pa.table({"text_en": texts, "text_de": others})
    pq.write_table(table, tmp_path / "items.parquet")
    (batch,) = ItemTexts(tmp_path / "items.parquet", (), ()).batches(9)
    encoded = encode(encoder, batch)
    assert encoded.has["text"].tolist() == [True] * 4 + [False] * 2
    alone = encoder.encode(["a tree"]).vectors[0]
    assert (encoded.vectors["text"][:4] == alone).all()
    assert encoded.encoded == 1
    digests = batch.digests("e")
    assert digests[0] == digests[1]
    assert len({digests[0], digests[2], digests[3]}) == 3  # another language is another item
    assert digests[4] == digests[5]
    assert batch.digests("f")[0] != digests[0]


def test_languages_are_averaged_as_unit_vectors(encoder: TextEncoder, tmp_path: Path) -> None:
    table = pa.table({"text_en": ["the tree of house"], "text_de": ["das Haus"]})
    pq.write_table(table, tmp_path / "items.parquet")
    (batch,) = ItemTexts(tmp_path / "items.parquet", (), ()).batches(9)
    both = encoder.encode(["the tree of house", "das Haus"]).vectors.astype(np.float64)
    assert np.allclose(encode(encoder, batch).vectors["text"][0], both.mean(0), atol=1e-7)


def test_principal_components_and_what_items_without_a_modality_get(
    encoder: TextEncoder, catalogue: Path
) -> None:
    items = ItemTexts(catalogue, (), ["image"])
    fitted = fit(encoder, items, FEATURE, size=6)
    parts = {part.has: part for part in fitted.about.parts}
    assert parts["text", "image"].explained > 0.5  # type: ignore[operator]
    assert parts["text",].penalty is not None
    assert fitted.about.size == 6
    assert np.allclose(fitted.mean, 0, atol=1e-9)
    assert np.square(fitted.scale).mean() == pytest.approx(1)
    alone = fit(encoder, ItemTexts(catalogue, (), ()), FEATURE, size=6)
    assert [part.has for part in alone.about.parts] == [("text",)]


def test_a_map_is_the_same_bytes_and_is_read_again(
    encoder: TextEncoder, catalogue: Path, ridge_map: Path, content: ContentMap, tmp_path: Path
) -> None:
    items = ItemTexts(catalogue, (), ["image", FEATURE])
    again = fit(encoder, items, FEATURE, into=FEATURE).encoded()
    assert again == ridge_map.read_bytes()
    assert content.encoded() == again
    (tmp_path / "cut.npz").write_bytes(again[:-9])
    with pytest.raises(BundleError, match=r"cut.npz: not a content map.+content fit"):
        ContentMap.load(tmp_path / "cut.npz")
    other = bytearray(again)
    other[other.index(b"PK\1\2") + 6] = 99  # the release of zip that an array needs
    (tmp_path / "zip.npz").write_bytes(other)
    with pytest.raises(BundleError, match=r"zip.npz: not a content map.+zip file version.+again"):
        ContentMap.load(tmp_path / "zip.npz")
    (tmp_path / "text.npz").write_text("x")
    with pytest.raises(
        BundleError, match=r"text.npz: not a content map: no npz file; fit it again"
    ):
        ContentMap.load(tmp_path / "text.npz")
    with pytest.raises(BundleError, match=r"none.npz: .+No such file"):
        ContentMap.load(tmp_path / "none.npz")


def test_the_largest_part_among_what_an_item_has_is_taken(content: ContentMap) -> None:
    assert content.fitting({"text"}) == ("text",)
    assert content.fitting({"image", "text", "sound"}) == ("text", "image")
    assert content.fitting({"image"}) == ("image",)
    assert content.fitting({"sound"}) is None


def test_what_cannot_be_fitted_is_named(
    encoder: TextEncoder, catalogue: Path, tmp_path: Path
) -> None:
    encoded: list[int] = []
    with pytest.raises(DataFileError, match="--size 25: the vectors vary in at most 24 directions"):
        fit(encoder, ItemTexts(catalogue, (), ()), FEATURE, size=25, advance=encoded.append)
    assert not encoded
    few = pq.read_table(catalogue).slice(0, 40)
    pq.write_table(few, tmp_path / "few.parquet")
    with pytest.raises(DataFileError, match="items have texts and the numbers to fit to, 60"):
        fit(encoder, ItemTexts(tmp_path / "few.parquet", (), [FEATURE]), FEATURE, into=FEATURE)
    pq.write_table(few.drop_columns(["text_en", "text_de"]), tmp_path / "none.parquet")
    with pytest.raises(DataFileError, match=r"no column text or text_LANG.+item_id, image"):
        ItemTexts(tmp_path / "none.parquet", (), ())
    with pytest.raises(DataFileError, match="level: holds int64, not texts"):
        next(ItemTexts(catalogue, ["level"], ()).batches(9))


def test_the_commands_fit_and_describe(bundle: Path, catalogue: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "map.npz")
    words = ["--given", "image", "--into", FEATURE, "--out", out, "--json"]
    done = CliRunner().invoke(app, ["content", "fit", str(bundle), str(catalogue), *words])
    assert done.exit_code == 0, done.output
    fitted = json.loads(done.stdout.splitlines()[-1])
    assert (fitted["method"], fitted["size"], fitted["inputs"]["image"]) == ("ridge", SIZE, IMAGE)
    assert fitted["digest"] == content_digest(fitted["network"], fitted["map"])
    assert len(fitted["digest"]) == 16
    shown = CliRunner().invoke(app, ["content", "info", out])
    assert shown.exit_code == 0
    assert fitted["digest"] in shown.output
    missing = CliRunner().invoke(app, ["content", "fit", str(bundle), out, "--out", out])
    assert missing.exit_code == 1
    assert "not a readable parquet file" in missing.output


def test_a_map_is_written_through_a_link_and_not_to_a_device(
    bundle: Path, catalogue: Path, tmp_path: Path
) -> None:
    link, pipe = tmp_path / "map.npz", tmp_path / "pipe"
    link.symlink_to("kept.npz")
    os.mkfifo(pipe)
    words = ["content", "fit", str(bundle), str(catalogue), "--size", "4", "--out"]
    done = CliRunner().invoke(app, [*words, str(link)])
    assert done.exit_code == 0, done.output
    assert link.readlink() == Path("kept.npz")
    ContentMap.load(tmp_path / "kept.npz")
    refused = CliRunner().invoke(app, [*words, str(pipe)])
    assert refused.exit_code == 2
    assert "device" in refused.output
    assert pipe.is_fifo()


@pytest.mark.parametrize("value", [0.1, 1e9])
@pytest.mark.parametrize("into", [None, FEATURE])
def test_a_vector_that_all_items_have_alike_says_nothing(
    encoder: TextEncoder, catalogue: Path, tmp_path: Path, value: float, into: str | None
) -> None:
    """As where an image is missing of all: rounding errors are no variance to scale up."""
    items = pq.read_table(catalogue)
    alike = pa.array([[value] * 4] * ITEMS)
    pq.write_table(items.append_column("alike", alike), tmp_path / "items.parquet")
    given = ["alike", *([into] if into else [])]
    texts = ItemTexts(tmp_path / "items.parquet", (), given)
    fitted = fit(encoder, texts, FEATURE, into=into, size=6)
    parts = {part.has: part for part in fitted.about.parts}
    assert abs(parts["alike",].r2 or 0) < 0.1
    for has, columns in ((("alike",), slice(0, 4)), (("text", "alike"), slice(-4, None))):
        assert not fitted.parts[has].weight[columns].any()
    assert np.abs(fitted.content({"alike": np.full((1, 4), value)})[0] - fitted.mean).max() < 1e-3


def test_what_is_fitted_to_is_no_input(bundle: Path, catalogue: Path, tmp_path: Path) -> None:
    words = ["content", "fit", str(bundle), str(catalogue), "--out", str(tmp_path / "map.npz")]
    done = CliRunner().invoke(app, [*words, "--given", FEATURE, "--into", FEATURE])
    assert done.exit_code == 2
    assert "is also --given" in done.output


def test_a_column_of_vectors_is_not_called_as_the_texts_are(
    encoder: TextEncoder, catalogue: Path, tmp_path: Path
) -> None:
    items = pq.read_table(catalogue).rename_columns({"image": "text"})
    pq.write_table(items, tmp_path / "items.parquet")
    with pytest.raises(DataFileError, match=r"column text of vectors: .+ rename it"):
        fit(encoder, ItemTexts(tmp_path / "items.parquet", ["text_en"], ["text"]), FEATURE, size=4)


def test_a_map_that_cannot_be_written_is_named_and_absent(
    bundle: Path, catalogue: Path, tmp_path: Path
) -> None:
    out = tmp_path / "map.npz"
    words = ["content", "fit", str(bundle), str(catalogue), "--size", "4", "--out", str(out)]
    with files_of_at_most(64):
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert f"error: {out}: File too large" in done.stderr
    assert not list(tmp_path.iterdir())
