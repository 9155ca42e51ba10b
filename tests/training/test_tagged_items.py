"""Items of a text corpus: a taste that follows from their tags, cold ones, their files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from feature_store.parquet.columns import DataFileError
from feature_store.schema import FeatureSchema
from training.__main__ import app
from training.data.catalogue import Catalogue
from training.data.dataset import open_data
from training.data.reader import read_rows
from training.evaluation.metrics import auc
from training.synthetic.sizes import SIZES
from training.synthetic.synthesize import synthesize
from training.synthetic.tagged_items import TaggedItems

ITEMS, TOPICS, HELD_OUT = 120, 6, 5  # every fifth item is held out
SMALL = ["--train", "6001", "--valid", "801", "--test", "403", "--cold", "801"]
SMALL += ["--embedding", "12", "--history", "8"]


def rows() -> list[dict[str, Any]]:
    found = []
    for n in range(ITEMS):
        tags = [f"topic::{n % TOPICS}", f"use::{n % 4}", "role::program", f"rare::{n}"]
        split = "test" if n % HELD_OUT == 0 else "train"
        for lang in ("de", "en", "es") if n % 3 else ("en", "de"):
            found.append(
                {"id": f"pkg{n:03}", "lang": lang, "text": f"{lang} {n}", "tags": tags}
                | {"source": "packages", "split": split}
            )
    return found


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    only = {"id": "one", "lang": "en", "text": "English alone", "tags": ["topic::0"] * 4}
    few = [
        {"id": "few", "lang": lang, "text": "few tags", "tags": ["topic::0"]}
        | {"source": "packages", "split": "train"}
        for lang in ("en", "de")
    ]
    table = [*rows(), only | {"source": "packages", "split": "train"}, *few]
    pq.write_table(pa.Table.from_pylist(table), folder / "items.parquet")
    (folder / "corpus.json").write_text(json.dumps({"languages": ["en", "de", "es"]}))
    return folder


def test_items_have_texts_in_two_languages_and_enough_tags(corpus: Path) -> None:
    items = TaggedItems.read(corpus, 4)
    assert len(items) == ITEMS
    assert list(items.texts) == ["en", "de", "es"]
    assert not any(text is None for lang in ("en", "de") for text in items.texts[lang])
    assert sum(text is None for text in items.texts["es"]) == ITEMS // 3
    assert items.cold.sum() == ITEMS // HELD_OUT
    assert items.cold.tolist() == sorted(items.cold.tolist())  # warm ones first
    for name, text, cold in zip(items.names, items.texts["de"], items.cold, strict=True):
        assert text == f"de {int(name[3:])}"
        assert cold == (int(name[3:]) % HELD_OUT == 0)


def test_a_table_that_the_corpus_does_not_describe_is_refused(corpus: Path) -> None:
    table = corpus / "items.parquet"
    about = {"sha256": hashlib.sha256(table.read_bytes()).hexdigest()}
    (corpus / "corpus.json").write_text(
        json.dumps({"languages": ["en", "de", "es"], "tables": {"items": about}})
    )
    TaggedItems.read(corpus, 4)
    pq.write_table(pq.read_table(table).slice(1), table)
    with pytest.raises(DataFileError, match=r"items\.parquet: is not the one that corpus"):
        TaggedItems.read(corpus, 4)


def test_items_of_equal_tags_have_the_same_taste(corpus: Path) -> None:
    """A tag of one item alone says nothing."""
    items = TaggedItems.read(corpus, 4)
    latent = items.latent(np.random.default_rng(0))
    assert latent.shape == (ITEMS, 4)
    assert np.allclose((latent**2).sum(1), 4, atol=1e-4)
    number = np.array([int(name[3:]) for name in items.names])
    alike = (number[:, None] - number) % (TOPICS * 4 // 2) == 0
    near = latent @ latent.T
    assert np.allclose(near[alike], 4, atol=1e-3)
    assert abs(near[~alike].mean()) < 0.5


def test_the_seed_turns_the_tastes(corpus: Path) -> None:
    items = TaggedItems.read(corpus, 4)
    first, second = (items.latent(np.random.default_rng(seed)) for seed in (0, 1))
    assert not np.allclose(first, second, atol=0.1)
    assert np.allclose(first @ first.T, second @ second.T, atol=1e-3)


@pytest.mark.filterwarnings("error")
def test_a_catalogue_is_written_with_its_texts_and_rows_of_cold_items(
    corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "data"
    command = ["synthesize", str(out), "--catalogue", str(corpus), "--json", *SMALL]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    truth = json.loads(done.stdout)
    schema = FeatureSchema.read(out / "schema.yaml")
    assert [feature.name for feature in schema.item] == ["item_id", "item_emb_d128"]
    texts = pq.read_table(out / "item_text.parquet").to_pylist()
    assert [row["item_id"] for row in texts] == list(range(1, ITEMS + 1))
    german = {row["item_id"] for row in texts if row["text_en"] is None}
    assert all(row["text_de"] and not (row["text_en"] is None and row["text_es"]) for row in texts)
    assert len(german) == truth["cold_items_of_one_language"] > 0
    (out / "item_planted.parquet").rename(out / "item_info.parquet")
    data = open_data(out, schema)
    cold = {row["item_id"] for row in texts if int(row["name"][3:]) % HELD_OUT == 0}
    assert len(cold) == truth["cold_items"]
    assert german < cold
    shown = np.union1d(data.train.items.ids[data.train.target], data.train.history)
    assert not cold & set(shown.tolist())
    rows_of_cold = read_rows(out / "cold.parquet", data.items, tmp_path / "cache")
    assert set(rows_of_cold.items.ids[rows_of_cold.target].tolist()) <= cold
    assert len(rows_of_cold) == truth["sizes"]["cold"] == 801
    assert 0.6 < truth["best_auc_cold"] < 0.99


def test_the_best_auc_of_cold_items_is_that_of_their_true_probability(
    corpus: Path, tmp_path: Path
) -> None:
    """A score of planted content alone comes near it, and not above."""
    sizes = replace(SIZES["catalogue"], train=4000, valid=400, test=400, cold=4000, history=16)
    truth = synthesize(tmp_path, sizes, seed=4, catalogue=TaggedItems.read(corpus, 4))
    (tmp_path / "item_planted.parquet").rename(tmp_path / "item_info.parquet")
    paths = [tmp_path / f"item_{name}.parquet" for name in ("info", "feature")]
    items = Catalogue.read(paths, truth.sizes.schema)
    cold = read_rows(tmp_path / "cold.parquet", items, tmp_path / "cache")
    content = items.rows["item_emb_d128"].astype(np.float64)
    score = (content[cold.history].sum(1) * content[cold.target]).sum(1)
    assert truth.best_auc_cold is not None
    assert 0.6 < auc(score, cold.label) < truth.best_auc_cold


def write(corpus: Path, table: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(table), corpus / "items.parquet")


def test_equal_ids_of_two_sources_are_two_items(corpus: Path) -> None:
    """Each with its own texts, tags and split."""
    other = [
        {**row, "source": "own", "text": f"own {row['lang']}", "split": "test", "tags": ["own::0"]}
        for row in rows()
        if row["id"] == "pkg001"
    ]
    write(corpus, rows() + other)
    items = TaggedItems.read(corpus)
    assert len(items) == ITEMS + 1
    found = [number for number, name in enumerate(items.names) if name == "pkg001"]
    assert [items.texts["de"][number] for number in found] == ["de 1", "own de"]
    assert [items.cold[number] for number in found] == [False, True]
    assert items.tags[found[1]] == ["own::0"]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"text": "de another"}, "text"),
        ({"lang": "fr", "split": "test"}, "split"),
        ({"lang": "fr", "tags": ["topic::5"]}, "tags"),
    ],
)
def test_an_item_that_an_earlier_row_describes_otherwise_is_refused(
    corpus: Path, other: dict[str, Any], what: str
) -> None:
    table = rows()
    first = next(row for row in table if (row["id"], row["lang"]) == ("pkg001", "de"))
    write(corpus, [*table, first | other])
    fault = rf"items\.parquet: row {len(table)}: {what}: not that of an earlier row of pkg001 \(p"
    with pytest.raises(DataFileError, match=fault):
        TaggedItems.read(corpus)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ([["a"], None], "holds nulls"),
        (["a", "b"], r"holds string, not list<.*string>"),
    ],
)
def test_tags_that_are_no_lists_of_texts_are_refused(
    corpus: Path, values: list[Any], fault: str
) -> None:
    texts = {name: ["a", "b"] for name in ("id", "lang", "text", "source", "split")}
    pq.write_table(pa.table(texts | {"tags": values}), corpus / "items.parquet")
    with pytest.raises(DataFileError, match=rf"items\.parquet: column tags: {fault}; build"):
        TaggedItems.read(corpus)


def test_a_row_that_repeats_another_is_no_fault(corpus: Path) -> None:
    write(corpus, rows() + rows()[:2])
    assert len(TaggedItems.read(corpus)) == ITEMS


def test_a_folder_that_is_no_such_corpus_is_refused_in_one_line(
    corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        DataFileError, match=r"nothing/corpus\.json: no such file: no corpus; build"
    ):
        TaggedItems.read(tmp_path / "nothing")
    with pytest.raises(DataFileError, match=r"0 items with texts in en and de and at least 9 tags"):
        TaggedItems.read(corpus, 9)
    pq.write_table(pa.table({"id": ["a"]}), corpus / "items.parquet")
    with pytest.raises(DataFileError, match=r"items\.parquet: no column lang; build"):
        TaggedItems.read(corpus)
    (corpus / "items.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataFileError, match=r"items\.parquet: not readable: .*; build"):
        TaggedItems.read(corpus)
    (corpus / "items.parquet").unlink()
    with pytest.raises(DataFileError, match=r"items\.parquet: no such file; build"):
        TaggedItems.read(corpus)
    (corpus / "corpus.json").write_text('{"languages": ["en"]}')
    with pytest.raises(DataFileError, match=r"languages: at least two"):
        TaggedItems.read(corpus)


@pytest.mark.parametrize(
    "options",
    [
        ["--catalogue", "x", "--preset", "taste"],
        ["--cold", "9"],
        ["--catalogue", "x", "--items", "12"],
        ["--least-tags", "4"],
    ],
)
def test_options_that_contradict_the_catalogue_are_refused(
    options: list[str], tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, ["synthesize", str(tmp_path / "out"), *options])
    assert done.exit_code == 2
    assert "--catalogue" in done.output
