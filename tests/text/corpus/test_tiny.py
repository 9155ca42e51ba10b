from __future__ import annotations

from pathlib import Path

import pytest

from text.corpus.archives import Archives
from text.corpus.build import build
from text.corpus.corpus import Corpus
from text.corpus.own_files import TINY

LANGUAGES = ("en", "de", "es")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    out = tmp_path_factory.mktemp("tiny") / "corpus"
    build(out, LANGUAGES, {}, [TINY], Archives(out.parent / "none"))
    return Corpus.open(out)


def test_the_tiny_corpus_has_every_kind_of_table(tiny: Corpus) -> None:
    for lang in LANGUAGES:
        assert tiny.texts(lang).num_rows == 96
        assert tiny.pairs(lang, lang, "train", "pair").num_rows == 30
        assert tiny.graded(lang, lang, "test").num_rows == 30
        assert tiny.labels("label", lang, "test").num_rows == 24
        assert tiny.retrieval("planted-256", lang).queries.num_rows == 12
    for lang in ("de", "es"):
        assert tiny.pairs("en", lang, "train", "translation").num_rows == 60
        across = tiny.retrieval("questions", "en", lang)
        assert (across.queries.num_rows, across.documents.num_rows) == (12, 96)


def test_pairs_of_texts_that_other_files_have_are_kept_once(tiny: Corpus) -> None:
    """Each sentence is in four files, and each pair in one."""
    pairs = tiny.pairs().select(["text_a", "text_b"]).to_pylist()
    assert len({(pair["text_a"], pair["text_b"]) for pair in pairs}) == len(pairs) == 432


def test_a_repeated_pair_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    rows = "one of them all\teins von allen\n" * 2 + "One of them, all\tEins von allen!\n"
    rows += "one of them all\tjemand von ihnen\n"
    (tmp_path / "mine" / "a.en-de.tsv").write_text(f"text_a\ttext_b\n{rows}")
    build(tmp_path / "out", ["en", "de"], {}, [tmp_path / "mine"], Archives(tmp_path / "none"))
    corpus = Corpus.open(tmp_path / "out")
    found = [pair["text_b"] for pair in corpus.pairs().to_pylist()]
    assert found == ["eins von allen", "jemand von ihnen"]
    assert corpus.about["refused"]["mine"]["pair: duplicate"] == 2


def test_sentences_with_a_class_are_items(tiny: Corpus) -> None:
    items = tiny.items()
    assert items.num_rows == 96 * len(LANGUAGES)
    assert {tuple(tags) for tags in items["tags"].to_pylist()} >= {("label::music",)}
    assert tiny.items("de", "test").num_rows == 24
