from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from tests.text.corpus.archives import deb, write_archives
from tests.text.corpus.conftest import NAMES
from text.corpus.archives import Archives
from text.corpus.build import build
from text.corpus.collection import Collection
from text.corpus.corpus import Corpus
from text.corpus.duplicates import Verdict, words
from text.corpus.entry import Entry, Row
from text.corpus.errors import CorpusError
from text.corpus.sources import chosen
from text.corpus.split import split_of
from text.corpus.tasks import MASK


def sides(corpus: Corpus) -> list[dict[str, str]]:
    """Texts of all tables, with language, split and group if they have one."""
    found = corpus.texts().select(["lang", "text", "split", "group"]).to_pylist()
    for pair in corpus.pairs().to_pylist():
        for side in "ab":
            found.append(
                {"lang": pair[f"lang_{side}"], "text": pair[f"text_{side}"]}
                | {name: pair[name] for name in ("split", "group")}
            )
    return found


def test_no_group_is_in_two_splits(corpus: Corpus) -> None:
    splits = defaultdict(set)
    for side in sides(corpus):
        splits[side["group"]].add(side["split"])
    assert {len(found) for found in splits.values()} == {1}
    assert {split for found in splits.values() for split in found} == {"train", "valid", "test"}
    for pair in corpus.graded().to_pylist():
        assert splits[pair["group_a"]] <= {pair["split"]}
        assert splits[pair["group_b"]] <= {pair["split"]}


def test_no_text_of_test_or_valid_is_in_training(corpus: Corpus) -> None:
    held, training = set(), set()
    for side in sides(corpus):
        lines = [side["text"], *side["text"].split("\n")]
        keys = {(side["lang"], *words(line)) for line in lines if len(words(line)) > 2}
        (training if side["split"] == "train" else held).update(keys)
    assert len(held) > 100
    assert not held & training


def test_a_paragraph_of_all_pages_stays_in_one_split(corpus: Corpus) -> None:
    texts = corpus.texts().to_pylist()
    shared = [text for text in texts if text["text"] == "This text is the same on every page."]
    assert [text["split"] for text in shared] == ["test"]
    refused = corpus.about["refused"]["libreoffice-help"]
    assert refused["recurs in held-out texts"] > 40


def test_a_paragraph_that_is_not_translated_is_no_pair(corpus: Corpus) -> None:
    code = "print_all_values(first, second, third)"
    assert not [p for p in corpus.pairs().to_pylist() if code in (p["text_a"], p["text_b"])]
    assert corpus.about["refused"]["libreoffice-help"]["untranslated"] == 120


def test_translations_are_aligned(corpus: Corpus) -> None:
    pairs = corpus.pairs("en", "de", kind="translation").to_pylist()
    assert {pair["source"] for pair in pairs} == set(NAMES)
    shared = "This text is the same on every page."
    for pair in pairs:
        if pair["text_a"] == shared:
            continue
        # Each sentence has an invented word, which both languages share.
        assert set(pair["text_a"].split()) & set(pair["text_b"].split())
    assert not [pair for pair in pairs if "~" in pair["text_a"]]


def test_keywords_and_titles_ask_for_their_pages(corpus: Corpus) -> None:
    pairs = corpus.pairs(kind="keyword").to_pylist()
    assert {pair["label"] for pair in pairs} == {"scalc"}
    langs = {(pair["lang_a"], pair["lang_b"]) for pair in pairs}
    assert langs == {("en", "en"), ("de", "de"), ("en", "de"), ("de", "en")}
    across = corpus.retrieval("keywords", "de", "en")
    known = {document["id"]: document for document in across.documents.to_pylist()}
    assert across.queries.num_rows
    for query in across.queries.to_pylist():
        (page,) = query["relevant"]
        assert known[page]["lang"] == "en"
        assert known[page]["split"] == query["split"] == "test"


def test_package_names_are_masked_in_the_task_of_titles(corpus: Corpus) -> None:
    task = corpus.retrieval("titles", "en", "de")
    assert task.queries.num_rows
    assert {q["lang"] for q in task.queries.to_pylist()} == {"en"}
    assert {d["lang"] for d in task.documents.to_pylist()} == {"de"}
    texts = task.queries["text"].to_pylist() + task.documents["text"].to_pylist()
    assert not [text for text in texts if "pkg" in text.casefold()]
    assert [text for text in texts if text.endswith(f". {MASK}")]


def test_package_names_are_masked_in_the_pairs_of_titles(corpus: Corpus) -> None:
    pairs = corpus.pairs(kind="title").to_pylist()
    own = [pair for pair in pairs if pair["source"] == "packages"]
    assert {(pair["lang_a"], pair["lang_b"]) for pair in own} >= {("en", "de"), ("de", "en")}
    sides = [pair[side].casefold() for pair in own for side in ("text_a", "text_b")]
    assert not [text for text in sides if "pkg" in text]
    translated = corpus.pairs(kind="translation").to_pylist()
    assert [pair for pair in translated if "pkg" in pair["text_a"]]


def test_planted_documents_have_their_length_and_their_page(corpus: Corpus) -> None:
    task = corpus.retrieval("planted-512", "en")
    pages = {d["id"]: d["text"] for d in corpus.documents("keywords", "en").to_pylist()}
    assert {document["words"] for document in task.documents.to_pylist()} == {292}
    for document in task.documents.to_pylist():
        assert len(document["text"].split()) == document["words"]
        assert " ".join(pages[document["id"]].split()) in document["text"]


def test_equal_archives_make_equal_corpora(corpus: Corpus, archives: Path, tmp_path: Path) -> None:
    build(tmp_path / "again", ["en", "de"], chosen(NAMES), [], Archives(archives))
    again = Corpus.open(tmp_path / "again")
    assert again.digest == corpus.digest
    assert again.about["counts"] == corpus.about["counts"]


def test_archives_are_recorded_with_version_and_digest(corpus: Corpus) -> None:
    used = corpus.about["sources"]["libreoffice-help"]["archives"]
    assert {each["package"] for each in used} == {
        "libreoffice-help-en-us",
        "libreoffice-help-de",
    }
    assert all(each["version"] == "1" and len(each["sha256"]) == 64 for each in used)
    lists = {each["package"] for each in corpus.about["sources"]["packages"]["archives"]}
    assert lists == {"Packages", "Translation-en", "Translation-de"}


def test_the_split_of_a_group_is_that_of_every_corpus() -> None:
    splits = [split_of(f"packages:{n}") for n in range(20_000)]
    assert abs(splits.count("test") / 20_000 - 0.10) < 0.01
    assert abs(splits.count("valid") / 20_000 - 0.05) < 0.01
    assert [split_of(f"packages:{n}") for n in range(5)] == splits[:5]


def test_a_damaged_archive_is_refused_and_leaves_no_corpus(archives: Path, tmp_path: Path) -> None:
    copy = tmp_path / "archives"
    shutil.copytree(archives, copy)
    damaged = copy / "libreoffice-help-de_1_all.deb"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(CorpusError, match=r"libreoffice-help-de_1_all\.deb: damaged"):
        build(tmp_path / "out", ["en", "de"], chosen(NAMES), [], Archives(copy))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archives"]


def test_an_archive_without_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gnucash-common_1_all.deb").write_bytes(deb({})[:140])
    with pytest.raises(CorpusError, match="not a readable archive"):
        list(Archives(tmp_path).files("gnucash-common", ".*"))


def test_a_folder_that_is_no_corpus_is_not_replaced(archives: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(CorpusError, match="is no corpus"):
        build(tmp_path, ["en"], chosen(NAMES), [], Archives(archives))
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_three_splits_of_graded_pairs_have_the_same_score_in_each_language(
    tmp_path: Path,
) -> None:
    write_archives(tmp_path / "archives", pages=1, count=600)
    out = tmp_path / "out"
    build(out, ["en", "de"], chosen(["packages"]), [], Archives(tmp_path / "archives"))
    corpus = Corpus.open(out)
    for split in ("train", "valid", "test"):
        scores = [
            corpus.graded(a, b, split)["score"].to_pylist()
            for a, b in (("en", "en"), ("de", "de"), ("en", "de"))
        ]
        assert scores[0]
        assert scores[0] == scores[1] == scores[2]
        assert 0 <= min(scores[0]) < max(scores[0]) <= 1


def test_a_line_of_a_held_out_page_is_no_training_text(tmp_path: Path) -> None:
    """Nor one that is no text of its own, since it is equal in Spanish and Portuguese."""
    line, rest = "Barra de fórmulas", "Uno dos tres cuatro cinco seis"
    collection = Collection(tmp_path / "collected.parquet")
    rows = [Row("text", "es", line), Row("text", "pt", line), Row("page", "pt", f"{line}\n{rest}")]
    collection.add(Entry("x", "1", "held", rows, "test"))
    collection.add(Entry("x", "2", "other", [Row("text", "pt", line)], "train"))
    collection.judge()
    (_, held), (_, (training,)) = collection.entries()
    assert [each.verdict for each in held] == [Verdict.KEPT, Verdict.KEPT]
    assert training.verdict is Verdict.RECURS


def test_a_keyword_that_is_a_held_out_word_of_the_dictionary_stays(tmp_path: Path) -> None:
    collection = Collection(tmp_path / "collected.parquet")
    collection.add(Entry("x", "1", "held", [Row("word", "en", "charts")], "test"))
    collection.add(Entry("x", "2", "other", [Row("keyword", "en", "charts")], "train"))
    collection.add(Entry("x", "3", "third", [Row("word", "en", "charts")], "train"))
    collection.add(Entry("y", "1", "fourth", [Row("word", "en", "charts")], "train"))
    collection.judge()
    (_, (held,)), (_, (keyword,)), (_, (word,)), (_, (other,)) = collection.entries()
    assert held.verdict is keyword.verdict is other.verdict is Verdict.KEPT
    assert word.verdict is Verdict.RECURS


def test_words_of_the_dictionary_are_pairs_alone_and_leave_other_texts_as_they_are(
    archives: Path, corpus: Corpus, tmp_path: Path
) -> None:
    folder = tmp_path / "archives"
    shutil.copytree(archives, folder)
    names = [a + b for a in "abcdefghij" for b in "klmnopqrst"]
    entries = [f"Wort{name}; Computer :: word{name}; Computer" for name in names]
    content = "\n".join(entries).encode()
    (folder / "trans-de-en_1_all.deb").write_bytes(deb({"usr/share/trans/de-en": content}))
    build(tmp_path / "out", ["en", "de"], chosen((*NAMES, "trans-de-en")), [], Archives(folder))
    found = Corpus.open(tmp_path / "out")

    pairs = found.pairs(kind="word").to_pylist()
    assert {(pair["lang_a"], pair["lang_b"], pair["source"]) for pair in pairs} == {
        ("en", "de", "trans-de-en")
    }
    assert len(pairs) > 50
    assert all(words(pair["text_a"]) != words(pair["text_b"]) for pair in pairs)
    assert {pair["split"] for pair in pairs} == {"train", "valid", "test"}
    assert found.texts().to_pylist() == corpus.texts().to_pylist()
    for kind in ("title", "keyword", "translation"):
        assert found.pairs(kind=kind).to_pylist() == corpus.pairs(kind=kind).to_pylist()
