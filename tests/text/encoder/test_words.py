"""Words of a dictionary: a kind of pairs for stage II alone, in batches of their own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.text.corpus.archives import deb
from text.corpus.archives import Archives
from text.corpus.build import build
from text.corpus.corpus import Corpus
from text.corpus.own_files import TINY
from text.corpus.sources import chosen
from text.encoder import data, distilled, requirements, stages
from text.encoder.jinabert import JinaBert
from text.encoder.recipe import Distilled, MultiTask, Pairs, Recipe
from text.encoder.run import RunError
from text.encoder.sizes import EncoderSizes
from text.evaluate.encoders import Cosine
from text.evaluate.tasks import evaluate
from text.tokenizer import TextTokenizer, Tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives with a dictionary of single words."""
    folder = tmp_path_factory.mktemp("words")
    names = [a + b for a in "abcdefghij" for b in "klmnopqrst"]
    lines = "\n".join(f"Wort{name} {{n}} :: word{name}" for name in names)
    (folder / "trans-de-en_1_all.deb").write_bytes(deb({"usr/share/trans/de-en": lines.encode()}))
    return folder


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    build(folder / "corpus", ["en", "de"], chosen(["trans-de-en"]), [TINY], Archives(folder))
    return Corpus.open(folder / "corpus")


@pytest.fixture(scope="module")
def tokenizer(corpus: Corpus) -> TextTokenizer:
    return TextTokenizer.train(corpus.texts()["text"].to_pylist(), 500)


class Letters:
    """A teacher that counts letters."""

    name = "letters"

    def __init__(self) -> None:
        self.texts: list[str] = []

    def vectors(self, texts: list[str]) -> NDArray[np.float32]:
        self.texts = list(texts)
        return np.array([[1 + text.count(each) for each in "aeiou"] for text in texts], np.float32)


def test_a_batch_of_words_has_its_own_size(
    corpus: Corpus, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = EncoderSizes(vocabulary=500, hidden=16, layers=1, heads=2, intermediate=8)
    kinds = data.pair_rows(corpus, tokenizer, 32)
    assert "word" in [kind.kind for kind in kinds]
    drawn: list[int] = []
    own = stages.embed_batch

    def recording(network: JinaBert, tokens: Tokens, rows: NDArray[np.int64]) -> torch.Tensor:
        drawn.append(len(rows) // 2)
        return own(network, tokens, rows)

    monkeypatch.setattr(stages, "embed_batch", recording)
    for words in (1, 0):
        recipe = Pairs(batch_size=8, words=words, words_batch=20)
        stage = stages.PairsStage(JinaBert(sizes), kinds, recipe, 1)
        for step in range(5):
            assert stage.loss(step).isfinite()
    assert drawn == [20] * 5 + [8] * 5


def test_words_are_no_queries_and_not_asked_of_a_teacher(
    corpus: Corpus, tokenizer: TextTokenizer
) -> None:
    kinds = data.query_kinds(corpus, MultiTask(queries=500), 1)
    assert {name for kind in kinds for name in kind["kind"].to_pylist()} == {"pair"}
    teacher = Letters()
    distilled.distilled_rows(corpus, tokenizer, teacher, Distilled(pairs=10_000))
    assert len(teacher.texts) > 100
    assert not [text for text in teacher.texts if text.lower().startswith(("wort", "word"))]


def test_a_corpus_of_words_alone_has_nothing_for_a_teacher(folder: Path, tmp_path: Path) -> None:
    build(tmp_path / "corpus", ["en", "de"], chosen(["trans-de-en"]), [], Archives(folder))
    alone = Recipe().model_copy(update={"distilled": Distilled(steps=1)})
    with pytest.raises(RunError, match=r"no pairs of texts; --set distilled\.steps=0"):
        requirements.check(
            Corpus.open(tmp_path / "corpus"), alone, ("masked", "pairs", "multi_task")
        )


class Alike:
    """Encodes a word as its last two letters: finds every translation."""

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), 100), np.float32)
        for row, text in enumerate(texts):
            vectors[row, (ord(text[-2]) * 10 + ord(text[-1])) % 100] = 1
        return vectors


def test_held_out_words_are_a_task(corpus: Corpus) -> None:
    found = evaluate(Cosine("alike", Alike()), corpus, ["bitext"])
    words = [each for each in found if each.task == "words"]
    assert [(each.languages, each.metric) for each in words] == [
        ("en-de", "accuracy@1"),
        ("de-en", "accuracy@1"),
    ]
    test = corpus.pairs(split="test", kind="word")
    assert [each.items for each in words] == [len(test)] * 2
    assert [each.value for each in words] == [1, 1]
